"""The second packing of the 2:4 linears, with the ops' references standing in for a GPU's kernels."""

import copy

import pytest
import torch
from torch import nn

from bitmap_problems import quad_mask
from prism_kernels import dispatch
from prism_kernels.formats import FormatError
from prism_kernels.nn import Sparse24DualShiftLinear, Sparse24Linear, _cusparselt
from prism_kernels.nn._sparse24 import Sparse24LinearBase
from prism_kernels.testing import assert_matches

N, K = 48, 208
CLASSES = [Sparse24Linear, Sparse24DualShiftLinear]


@pytest.fixture
def device_packing(monkeypatch):
    """Packs on every device but meta, as if it were a GPU with compiled kernels that win below 65 tokens."""
    monkeypatch.setattr(Sparse24LinearBase, "_has_packing", lambda self, device: device.type != "meta")
    for module_class in CLASSES:
        monkeypatch.setitem(dispatch._crossovers, (module_class._DEVICE_OP, "cpu"), 65)


def make(module_class, generator, *, bias=True, dtype=torch.bfloat16, n=N, k=K, **options):
    linear = nn.Linear(k, n, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(n, k, generator=generator).to(dtype)
    mask = quad_mask(n, k, generator, 0.9)
    if module_class is Sparse24DualShiftLinear:
        options["column_scale"] = (0.5 + torch.rand(k, generator=generator)).bfloat16()
    return module_class.from_linear(linear, mask, **options)


def exact(module, x):
    """float64; the device op rounds x * column_scale to the dtype of x."""
    weight = module.to_dense().double()
    if isinstance(module, Sparse24DualShiftLinear):
        column = module.column_scale.double()
        scaled = (x.float() * module.column_scale.float()).to(x.dtype)
        y = scaled.double() @ (weight / column).T
    else:
        y = x.double() @ weight.T
    return y if module.bias is None else y + module.bias.double()


def called(monkeypatch, module, x):
    """Names of the ops of this library that module(x) called."""
    names = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "prism":
                names.append(func._schema.name.removeprefix("prism::"))
            return func(*args, **(kwargs or {}))

    with Watch():
        module(x)
    return names


@pytest.mark.parametrize("module_class", CLASSES)
def test_forward_takes_the_device_op(module_class, generator, device_packing, monkeypatch):
    for dtype in (torch.float16, torch.bfloat16):
        for bias in (True, False):
            module = make(module_class, generator, bias=bias, dtype=dtype)
            for shape in ((K,), (1, K), (2, 3, K), (64, K), (0, K)):
                x = torch.randn(shape, generator=generator).to(dtype)
                y = module(x)
                assert y.dtype == dtype and y.shape == (*shape[:-1], N)
                assert_matches(y.detach().reshape(-1, N), exact(module, x).detach().reshape(-1, N), K)
    x = torch.randn(3, K, generator=generator).to(dtype)
    assert called(monkeypatch, module, x) == [module_class._DEVICE_OP]
    assert module.op_for(x) == module_class._DEVICE_OP
    assert module_class._DEVICE_OP not in called(monkeypatch, module, x.repeat(30, 1))
    assert module.op_for(x.float()) == module_class._op()
    assert module_class._DEVICE_OP not in called(monkeypatch, make(module_class, generator, bias=False), x.float())


def test_what_the_device_op_does_not_take_runs_as_a_bitmap(generator, device_packing):
    x = torch.randn(3, K, generator=generator).bfloat16()
    others = [
        make(Sparse24Linear, generator, dtype=torch.float32),
        make(Sparse24DualShiftLinear, generator, bits=3),
        make(Sparse24DualShiftLinear, generator, bits=4, codebook="nf4"),
        make(Sparse24DualShiftLinear, generator, group_size=48),
    ]
    for module in others:
        assert module.packed is None and module.op_for(x) == module._op()
    module = make(Sparse24DualShiftLinear, generator)
    module.activation_bits = 8
    assert module.op_for(x) == "bitmap_dual_shift_linear"


@pytest.mark.parametrize("module_class", CLASSES)
def test_the_packing_is_derived_once_and_never_stored(module_class, generator, device_packing):
    module = make(module_class, generator)
    assert set(module.state_dict()) == {*module.packed_weight().tensors(), "bias"}
    packed, state = module.packed, {name: t.clone() for name, t in module.state_dict().items()}
    module(torch.randn(2, K).bfloat16())
    module.to(torch.bfloat16)
    assert module.packed is packed
    assert all(torch.equal(state[name], t) for name, t in module.state_dict().items())
    held = module.packed.nbytes + module.packed_columns.nbytes
    if module_class is Sparse24DualShiftLinear:
        held += module.scale.nbytes + module.zero.nbytes + module.column_scale.nbytes
    assert module.resident_nbytes == held
    assert module.nbytes == module.packed_weight().nbytes
    twin = copy.deepcopy(module)
    assert torch.equal(twin.packed, packed) and twin.packed is not packed


@pytest.mark.parametrize(("module_class", "bits"), [(Sparse24Linear, 9.0), (Sparse24DualShiftLinear, 3.375)])
def test_one_representation_is_resident(module_class, bits, generator, device_packing):
    module = make(module_class, generator, bias=False, n=256, k=256)
    assert 8 * module.resident_nbytes / (256 * 256) == bits
    assert module.resident_nbytes == module.nbytes
    module._unpack()
    assert module.resident_nbytes == module.nbytes + module.panel_offsets.nbytes


def test_activation_bits_choose_what_is_held(generator, device_packing):
    module = make(Sparse24DualShiftLinear, generator)
    state = {name: t.clone() for name, t in module.state_dict().items()}
    packed = module.packed
    module.activation_bits = 8
    assert not module.is_packed and module.resident_nbytes == module.nbytes + module.panel_offsets.nbytes
    assert all(torch.equal(state[name], t) for name, t in module.state_dict().items())
    module.to(torch.float64).activation_bits = None
    assert torch.equal(module.packed, packed) and module.bitmap is None
    assert Sparse24DualShiftLinear(module.packed_weight(), activation_bits=8).packed is None


def test_decoded_codes_equal_the_bitmaps(generator, device_packing):
    module = make(Sparse24DualShiftLinear, generator, n=37, k=201, group_size=32)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(module.decode(dtype), module.packed_weight().to_dense(dtype))


@pytest.mark.parametrize("module_class", CLASSES)
def test_canonical_tensors_come_back_bit_for_bit(module_class, generator, device_packing, monkeypatch):
    module = make(module_class, generator, n=37, k=201)
    packed = {name: t.clone() for name, t in module.state_dict().items()}
    dense, whole = module.to_dense(), module.decode(torch.bfloat16)
    assert torch.equal(whole, dense.bfloat16())
    for begin, end in ((0, 16), (16, 37), (32, 37)):
        assert torch.equal(module.decode(torch.bfloat16, begin, end), whole[begin:end])
    module._unpack()
    assert not module.is_packed
    assert all(torch.equal(packed[name], t) for name, t in module.state_dict().items())
    assert torch.equal(module.panel_offsets, module.packed_weight().panel_offsets())
    assert torch.equal(module.to_dense(), dense)


@pytest.mark.parametrize("module_class", CLASSES)
def test_a_failed_load_leaves_no_packing(module_class, generator, device_packing):
    module = make(module_class, generator)
    state = {name: t.clone() for name, t in module.state_dict().items()}
    state["bitmap"][0, 0] = 0
    with pytest.raises(RuntimeError, match=f"{module_class.FORMAT.NAME}: (values|codes) must"):
        module.load_state_dict(state)
    assert not module.is_packed


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("assign", [False, True])
def test_loading_packs_again(module_class, generator, device_packing, assign):
    source, target = make(module_class, generator), make(module_class, generator)
    x = torch.randn(2, K, generator=generator).bfloat16()
    assert not torch.equal(source(x), target(x))
    target.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("module_class", CLASSES)
def test_from_meta_the_packing_waits_for_the_weights(module_class, generator, device_packing):
    source = make(module_class, generator)
    target = make(module_class, generator).to("meta")
    assert target.packed is None
    target.to_empty(device="cpu")
    assert target.packed is None
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.packed, source.packed) and torch.equal(target.to_dense(), source.to_dense())


@pytest.mark.parametrize("module_class", CLASSES)
def test_nothing_is_packed_on_a_cpu(module_class, generator):
    module = make(module_class, generator)
    assert module.packed is None
    assert (
        module.served_by()
        == dict((r.device, f"{r.backend} ({r.reason})") for r in dispatch.explain(module._op()))["cpu"]
    )


def test_invalid_tensors_are_never_packed(generator, device_packing):
    module = make(Sparse24Linear, generator)
    module._unpack()
    module.bitmap[0, 0] = 0
    with pytest.raises(FormatError, match="sparse24: values must"):
        module._pack_for_device()
    assert not module.is_packed


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("m", [1, 70])
def test_compiles_to_one_graph(module_class, generator, device_packing, m):
    module = make(module_class, generator)
    x = torch.randn(m, K, generator=generator).bfloat16()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("module_class", CLASSES)
def test_gradients_reach_input_and_bias(module_class, generator, device_packing):
    module = make(module_class, generator, dtype=torch.float16)
    x = torch.randn(3, K, generator=generator).half().requires_grad_()
    module(x).sum().backward()
    ones = torch.ones(3, N, dtype=torch.float64)
    assert_matches(x.grad, ones @ module.to_dense(torch.float16).double(), N)
    assert torch.equal(module.bias.grad, torch.full((N,), 3.0).half())


@pytest.fixture
def fake_cusparselt(monkeypatch, device_packing):
    """cuSPARSELt in its absence: the compressed weight is the dense one; records what was asked of it."""
    calls = []

    def multiply(weight, x, bias=None, transpose_result=False, alg_id=0):
        assert transpose_result and x.shape[1] % 8 == 0
        calls.append((x.shape[1], alg_id))
        y = x.t().float() @ weight.float().T
        return (y if bias is None else y + bias.float()).to(weight.dtype)

    monkeypatch.setattr(_cusparselt, "is_available", lambda device: device.type != "meta")
    monkeypatch.setattr(_cusparselt, "_algorithms", {})
    monkeypatch.setattr(torch, "_cslt_compress", torch.clone)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", multiply)
    searched = []
    monkeypatch.setattr(
        torch, "_cslt_sparse_mm_search", lambda a, x, transpose_result: searched.append(x.shape[1]) or len(searched)
    )
    return calls, searched


def test_many_tokens_go_to_cusparselt(generator, fake_cusparselt):
    calls, searched = fake_cusparselt
    module, twin = make(Sparse24Linear, generator), make(Sparse24Linear, generator)
    least = dispatch.cusparselt_crossover("sparse24_linear")
    with torch.no_grad():
        module(torch.randn(least - 1, K).bfloat16())
        assert module.compressed is None and not calls and not searched
        for m, padded, algorithm in ((least, least, 1), (least + 3, least + 8, 1), (4096, 4096, 2), (4099, 4104, 2)):
            x = torch.randn(m, K, generator=generator).bfloat16()
            y = module(x)
            assert calls.pop() == (padded, algorithm)
            assert_matches(y, exact(module, x), K)
        assert searched == list(_cusparselt.SEARCHED_TOKENS)
        twin(x)
        assert calls.pop() and len(searched) == len(_cusparselt.SEARCHED_TOKENS), "one search per shape"
    module(torch.randn(least, K).bfloat16())  # with a gradient for the bias
    assert not calls


def test_cusparselt_only_where_it_fits(generator, fake_cusparselt):
    x = torch.randn(dispatch.cusparselt_crossover("sparse24_linear"), 208).bfloat16()
    with torch.no_grad():
        narrow, short = make(Sparse24Linear, generator, n=40), make(Sparse24Linear, generator, k=200)
        narrow(x), short(x[:, :200])
        assert narrow.compressed is None and short.compressed is None and not short.prepare_cusparselt()
    module = make(Sparse24Linear, generator)
    assert module.prepare_cusparselt() and module.compressed is not None
    assert module.to("meta").compressed is None and not module.prepare_cusparselt()


def test_the_copy_for_cusparselt_is_the_users_choice(generator, fake_cusparselt, monkeypatch):
    calls, _ = fake_cusparselt
    module = make(Sparse24Linear, generator)
    x = torch.randn(dispatch.cusparselt_crossover("sparse24_linear"), K, generator=generator).bfloat16()
    small, served_by, state = module.resident_nbytes, module.served_by(), set(module.state_dict())
    with torch.inference_mode():
        module(x)
        assert calls.pop()
    assert not module.compressed.is_inference()
    assert module.resident_nbytes == small + module.compressed.nbytes and set(module.state_dict()) == state
    assert module.served_by() == f"{served_by}, cuSPARSELt's copy holds {module.compressed.nbytes} bytes"
    module.release_cusparselt()
    assert module.resident_nbytes == small
    with torch.no_grad():
        monkeypatch.setattr(_cusparselt, "may_prepare", lambda x: False)  # captured, or compiled
        assert_matches(module(x), exact(module, x), K)
        assert module.compressed is None and not calls
        monkeypatch.undo()
    with pytest.raises(TypeError, match="Sparse24Linear: cusparselt must be a bool, got 'never'"):
        module.cusparselt = "never"


def test_without_cusparselt_nothing_is_copied(generator, fake_cusparselt):
    calls, _ = fake_cusparselt
    module = make(Sparse24Linear, generator)
    x = torch.randn(dispatch.cusparselt_crossover("sparse24_linear"), K, generator=generator).bfloat16()
    assert module.prepare_cusparselt()
    module.cusparselt = False
    with torch.no_grad():
        assert_matches(module(x), exact(module, x), K)
    assert module.compressed is None and not calls and not module.takes_cusparselt(x)
    assert not copy.deepcopy(module).cusparselt


def test_compiled_calls_use_the_copy_but_never_make_it(generator, fake_cusparselt):
    module = make(Sparse24Linear, generator)
    x = torch.randn(dispatch.cusparselt_crossover("sparse24_linear"), K, generator=generator).bfloat16()
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_matches(compiled(x), exact(module, x), K)
        assert module.compressed is None
        assert module.prepare_cusparselt()
        assert torch.equal(compiled(x), module(x))
