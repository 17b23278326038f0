"""BitmapLinear and BitmapDualShiftLinear: drop-in behaviour below and above the crossover."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels import dispatch
from prism_kernels.formats import BitmapDualShiftWeight, BitmapWeight
from prism_kernels.nn import BitmapDualShiftLinear, BitmapLinear
from prism_kernels.testing import assert_matches

N, K = 37, 200
CLASSES = [BitmapLinear, BitmapDualShiftLinear]


def make(module_class, generator, *, n=N, k=K, bias=True, dtype=torch.float32):
    linear = nn.Linear(k, n, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(n, k, generator=generator).to(dtype)
    mask = mixed_mask(n, k, generator)
    options = {"column_scale": (0.5 + torch.rand(k, generator=generator)).bfloat16()}
    module = module_class.from_linear(linear, mask, **({} if module_class is BitmapLinear else options))
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
                if not dispatch.prefers_dense(f"{module_class.FORMAT.NAME}_linear", x):
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
    assert module.resident_nbytes == module.nbytes + 4 * (N + 1)


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("assign", [False, True])
def test_loading_another_mask_derives_new_offsets(module_class, generator, assign):
    source, _ = make(module_class, generator)
    target, _ = make(module_class, generator)
    assert not torch.equal(source.row_offsets, target.row_offsets)
    wrapped = nn.Sequential(target)
    wrapped.load_state_dict({f"0.{k}": v.clone() for k, v in source.state_dict().items()}, assign=assign)
    assert torch.equal(source.row_offsets, target.row_offsets)
    assert torch.equal(source.to_dense(), target.to_dense())
    x = torch.randn(1, K, generator=generator)
    assert torch.equal(source(x), target(x))


@pytest.mark.parametrize("module_class", CLASSES)
def test_loading_bad_tensors_is_an_error(module_class, generator):
    module, _ = make(module_class, generator)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state["bitmap"][0, 0] ^= 1
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
    assert torch.equal(twin.row_offsets, twin.packed_weight().row_offsets())


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("m", [1, 40])
def test_compiles_to_one_graph(module_class, generator, m):
    module, _ = make(module_class, generator, dtype=torch.bfloat16)
    x = torch.randn(m, K, generator=generator).bfloat16()
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
    weight = BitmapWeight.pack(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"BitmapLinear: bias must have shape \[3\], got \[4\]"):
        BitmapLinear(weight, torch.ones(4))
    scales = torch.ones(4).bfloat16()
    with pytest.raises(ValueError, match=r"BitmapDualShiftLinear: bias must have shape \[3\], got \[4\]"):
        BitmapDualShiftLinear(BitmapDualShiftWeight.pack(torch.ones(3, 4), column_scale=scales), torch.ones(4))
