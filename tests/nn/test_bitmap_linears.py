"""The bitmap and 2:4 linears: drop-in behaviour below and above the crossover."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitmap_problems import FLOATS, mixed_mask, quad_mask
from prism_kernels import dispatch, ops, swap_linears
from prism_kernels.formats import BitmapDualShiftWeight, BitmapWeight
from prism_kernels.nn import BitmapDualShiftLinear, BitmapLinear, Sparse24DualShiftLinear, Sparse24Linear
from prism_kernels.testing import assert_matches

N, K = 37, 200
CLASSES = [BitmapLinear, BitmapDualShiftLinear, Sparse24Linear, Sparse24DualShiftLinear]
QUANTIZED = [BitmapDualShiftLinear, Sparse24DualShiftLinear]


def make(module_class, generator, *, n=N, k=K, bias=True, dtype=torch.float32):
    linear = nn.Linear(k, n, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(n, k, generator=generator).to(dtype)
    mask = (quad_mask if module_class.FORMAT.NAME.startswith("sparse24") else mixed_mask)(n, k, generator)
    options = {"column_scale": (0.5 + torch.rand(k, generator=generator)).bfloat16()}
    module = module_class.from_linear(linear, mask, **(options if module_class in QUANTIZED else {}))
    return module, mask


def exact(module, x):
    y = x.double() @ module.to_dense().double().T
    return y if module.bias is None else y + module.bias.double()


@pytest.mark.parametrize("module_class", CLASSES)
def test_forward_on_both_sides_of_the_crossover(module_class, generator):
    for dtype in FLOATS:
        for bias in (True, False):
            module, mask = make(module_class, generator, bias=bias, dtype=dtype)
            assert not module.to_dense()[~mask].any()
            for shape in ((K,), (1, K), (2, 3, K), (40, K), (0, K), (2, 0, K)):
                x = torch.randn(shape, generator=generator).to(dtype)
                y = module(x)
                assert y.dtype == dtype
                assert y.shape == (*shape[:-1], N)
                dense = F.linear(x.double(), module.to_dense(dtype).double())
                expected = dense if module.bias is None else dense + module.bias.double()
                if not dispatch.prefers_dense(module_class._op(), x):
                    expected = exact(module, x)
                assert_matches(y.detach().reshape(-1, N), expected.detach().reshape(-1, N), K)


@pytest.mark.parametrize("module_class", CLASSES)
def test_to_dtype_keeps_the_packed_tensors(module_class, generator):
    module, _ = make(module_class, generator)
    before = {name: b.clone() for name, b in module.named_buffers()}
    module.to(torch.float16)
    assert module.bias.dtype == torch.float16
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name
        assert buffer.dtype == before[name].dtype, name
    assert module(torch.randn(2, K, generator=generator).half()).dtype == torch.float16


@pytest.mark.parametrize("module_class", CLASSES)
def test_state_dict_holds_the_canonical_tensors(module_class, generator):
    module, _ = make(module_class, generator)
    state = module.state_dict()
    assert set(state) == {*module.packed_weight().tensors(), "bias"}
    assert module.nbytes == sum(t.numel() * t.element_size() for name, t in state.items() if name != "bias")
    assert module.resident_nbytes == module.nbytes + 8 * (-(-N // 16) + 1)


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("assign", [False, True])
def test_loading_another_mask_derives_new_offsets(module_class, generator, assign):
    source, _ = make(module_class, generator)
    target, _ = make(module_class, generator)
    if not module_class.FORMAT.NAME.startswith("sparse24"):  # whose panels are of equal length
        assert not torch.equal(source.panel_offsets, target.panel_offsets)
    assert not torch.equal(source.to_dense(), target.to_dense())
    wrapped = nn.Sequential(target)
    wrapped.load_state_dict({f"0.{k}": v.clone() for k, v in source.state_dict().items()}, assign=assign)
    assert torch.equal(source.panel_offsets, target.panel_offsets)
    assert torch.equal(source.to_dense(), target.to_dense())
    x = torch.randn(1, K, generator=generator)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("module_class", CLASSES)
def test_loading_bad_tensors_is_an_error(module_class, generator):
    module, _ = make(module_class, generator)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state["bitmap"][0, 0] = 0
    with pytest.raises(RuntimeError, match=f"{module_class.__name__}: {module_class.FORMAT.NAME}: (values|codes) must"):
        module.load_state_dict(state)


@pytest.mark.parametrize("module_class", CLASSES)
def test_deepcopy_is_independent(module_class, generator):
    module, _ = make(module_class, generator)
    x = torch.randn(1, K, generator=generator)
    expected = module(x).clone()
    twin = copy.deepcopy(module)
    module.bitmap.zero_()
    assert torch.equal(twin(x), expected)
    assert torch.equal(twin.panel_offsets, twin.packed_weight().panel_offsets())


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("m", [1, 40])
def test_compiles_to_one_graph(module_class, generator, m):
    module, _ = make(module_class, generator, dtype=torch.bfloat16)
    x = torch.randn(m, K, generator=generator).bfloat16()
    torch.compiler.reset()  # all classes share one forward, whose number of compilations is limited
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("module_class", CLASSES)
def test_gradients_reach_input_and_bias_only(module_class, generator):
    for m in (1, 40):
        module, _ = make(module_class, generator)
        x = torch.randn(m, K, generator=generator, requires_grad=True)
        module(x).sum().backward()
        ones = torch.ones(m, N, dtype=torch.float64)
        assert_matches(x.grad, ones @ module.to_dense().double(), N)
        assert torch.equal(module.bias.grad, torch.full((N,), float(m)))
        assert [name for name, _ in module.named_parameters()] == ["bias"]


@pytest.mark.parametrize("module_class", CLASSES)
def test_thread_count_does_not_matter(module_class, generator):
    module, _ = make(module_class, generator, n=301, dtype=torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        for m in (1, 3):
            x = torch.randn(m, K, generator=generator).bfloat16()
            torch.set_num_threads(1)
            one = module(x)
            torch.set_num_threads(3)
            assert torch.equal(one, module(x))
    finally:
        torch.set_num_threads(threads)


def test_repr_and_bias_shape(generator):
    module, _ = make(BitmapDualShiftLinear, generator)
    assert "200 -> 37, bitmap_dual_shift(bits=4, group_size=64, codebook=uniform), " in repr(module)
    assert "200 -> 37, bitmap(), " in repr(make(BitmapLinear, generator)[0])
    assert "200 -> 37, sparse24(), " in repr(make(Sparse24Linear, generator)[0])
    weight = BitmapWeight.pack(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"BitmapLinear: bias must have shape \[3\], got \[4\]"):
        BitmapLinear(weight, torch.ones(4))
    scales = torch.ones(4).bfloat16()
    with pytest.raises(ValueError, match=r"BitmapDualShiftLinear: bias must have shape \[3\], got \[4\]"):
        BitmapDualShiftLinear(BitmapDualShiftWeight.pack(torch.ones(3, 4), column_scale=scales), torch.ones(4))


@pytest.mark.parametrize("module_class", CLASSES)
def test_tiles_of_panels_equal_the_whole(module_class, generator):
    module, _ = make(module_class, generator, n=101)
    whole = module.decode(torch.float32)
    for begin, end in ((0, 16), (16, 64), (80, 101), (96, 101)):
        assert torch.equal(module.decode(torch.float32, begin, end), whole[begin:end])


@pytest.mark.parametrize("module_class", QUANTIZED)
def test_8_bit_activations_always_run_fused(module_class, generator):
    module, _ = make(module_class, generator)
    weight = module.packed_weight()
    tensors = (weight.bitmap, weight.codes, weight.panel_offsets(), weight.scale, weight.zero, weight.column_scale)
    for m in (1, 40):
        x = torch.randn(m, K, generator=generator)
        exact = module(x)
        module.activation_bits = 8
        options = {"n": N, "bits": 4, "group_size": 64, "activation_bits": 8}
        assert torch.equal(module(x), ops.bitmap_dual_shift_linear(x, *tensors, module.bias, **options))
        assert not torch.equal(module(x), exact)
        module.activation_bits = None
        assert torch.equal(module(x), exact)


def test_activation_bits_need_codes(generator):
    module, _ = make(BitmapLinear, generator)
    with pytest.raises(ValueError, match="BitmapLinear: activation_bits must be None"):
        module.activation_bits = 8


def test_swap_linears(generator):
    model = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 20))
    masks = {name: quad_mask(*model[int(name)].weight.shape, generator) for name in ("0", "2")}
    report = swap_linears(model, Sparse24DualShiftLinear, masks=masks, bits=4, group_size=16)
    assert set(report.swapped) == {"0", "2"}
    assert type(model[0]) is Sparse24DualShiftLinear and not model[0].to_dense()[~masks["0"]].any()
    assert model(torch.randn(3, 64, generator=generator)).shape == (3, 20)
