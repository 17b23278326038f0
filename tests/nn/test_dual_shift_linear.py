"""DualShiftLinear: both paths, dtype casts, state, copies and torch.compile."""

import copy

import pytest
import torch
from torch import nn

from prism_kernels import dispatch, ops, swap_linears
from prism_kernels.formats import DualShiftWeight
from prism_kernels.nn import BitmapLinear, DualShiftLinear
from prism_kernels.testing import assert_matches

PACKED_DTYPES = {"codes": torch.uint8, "scale": torch.bfloat16, "zero": torch.uint8, "column_scale": torch.bfloat16}


@pytest.fixture(autouse=True)
def near_crossover(monkeypatch):
    """Few tokens reach both paths, whatever the table of this instruction set says."""
    monkeypatch.setitem(dispatch._crossovers, ("dual_shift_linear", "cpu"), 6)


def make(n=48, k=130, bias=True, **options):
    torch.manual_seed(1)
    linear = nn.Linear(k, n, bias=bias)
    options.setdefault("column_scale", (torch.rand(k) + 0.5).bfloat16())
    return linear, DualShiftLinear.from_linear(linear, **options)


def expected(module, x, weight_dtype=torch.float32):
    y = x.double() @ module.to_dense(weight_dtype).double().T
    return y if module.bias is None else y + module.bias.detach().double()


@pytest.mark.parametrize("bias", [True, False])
def test_forward_on_both_sides_of_the_crossover(bias):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        _, module = make(bias=bias, bits=4, group_size=32)
        module = module.to(dtype)
        for m in (0, 1, 3, dispatch.crossover("dual_shift_linear", "cpu") + 1):
            x = torch.randn(m, 130).to(dtype)
            y = module(x)
            assert y.dtype == dtype
            fused = m < dispatch.crossover("dual_shift_linear", "cpu")
            # The dense path rounds the weight to dtype first.
            assert_matches(y.detach(), expected(module, x, torch.float32 if fused else dtype), 130)


def test_from_linear_with_mask():
    mask = torch.rand(48, 130) < 0.5
    linear, module = make(mask=mask, bits=8, group_size=64)
    dense = module.to_dense()
    assert bool((dense[~mask] == 0).all())
    assert float((dense - linear.weight.detach() * mask).abs().max()) < 0.01
    assert torch.equal(module.bias.detach(), linear.bias.detach())
    with pytest.raises(TypeError, match=r"linear must be an nn\.Linear, got Sequential"):
        DualShiftLinear.from_linear(nn.Sequential())


def test_to_dtype_leaves_packed_tensors_untouched():
    _, module = make(bits=3)
    before = {name: getattr(module, name).clone() for name in PACKED_DTYPES}
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float32):
        module.to(dtype)
        assert module.bias.dtype == dtype
        for name, wanted in PACKED_DTYPES.items():
            assert getattr(module, name).dtype == wanted and torch.equal(getattr(module, name), before[name])


def test_state_dict_round_trip():
    _, module = make(bits=5, group_size=48)
    _, other = make(bits=5, group_size=48, mask=torch.rand(48, 130) < 0.3)
    state = module.state_dict()
    assert set(state) == {*PACKED_DTYPES, "bias"}
    other.load_state_dict(state)
    assert torch.equal(other.to_dense(), module.to_dense())
    x = torch.randn(2, 130)
    assert torch.equal(other(x), module(x))


def test_deepcopy_is_independent():
    _, module = make()
    twin = copy.deepcopy(module)
    twin.codes.zero_()
    assert int(module.codes.max()) > 0
    assert twin.packed_weight().config() == module.packed_weight().config()


def test_packed_weight_shares_buffers_and_counts_bytes():
    _, module = make(bits=4, group_size=64)
    weight = module.packed_weight()
    assert isinstance(weight, DualShiftWeight) and weight.codes.data_ptr() == module.codes.data_ptr()
    assert module.nbytes == weight.nbytes == module.resident_nbytes
    assert module.bits_per_weight == weight.bits_per_weight
    assert "130 -> 48, dual_shift(bits=4, group_size=64, codebook=uniform)" in repr(module)


def test_gradients_reach_input_and_bias_on_both_paths():
    _, module = make()
    for m in (1, dispatch.crossover("dual_shift_linear", "cpu") + 1):
        module.zero_grad()
        x = torch.randn(m, 130, requires_grad=True)
        module(x).sum().backward()
        assert_matches(x.grad, module.to_dense().double().sum(0).expand(m, 130), 48)
        assert torch.equal(module.bias.grad, torch.full((48,), float(m)))
        assert [name for name, _ in module.named_parameters()] == ["bias"]


def test_compiles_to_one_graph_on_both_paths():
    _, module = make()
    torch.compiler.reset()  # all classes share one forward, whose number of compilations is limited
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for m in (1, dispatch.crossover("dual_shift_linear", "cpu") + 1):
        x = torch.randn(m, 130)
        assert torch.equal(compiled(x), module(x))


def test_8_bit_activations_always_run_fused():
    linear, exact = make(n=48, k=130, bits=4, group_size=32)
    scale = exact.column_scale
    module = DualShiftLinear.from_linear(linear, activation_bits=8, bits=4, group_size=32, column_scale=scale)
    assert module.activation_bits == 8 and ", activation_bits=8, " in repr(module)
    assert exact.activation_bits is None and "activation_bits" not in repr(exact)
    assert module.packed_weight().config() == exact.packed_weight().config()
    assert set(module.state_dict()) == set(exact.state_dict())
    weight = module.packed_weight()
    for m in (1, 5, dispatch.crossover("dual_shift_linear", "cpu") + 1):
        x = torch.randn(m, 130)
        grid = {"n": 48, "bits": 4, "group_size": 32, "activation_bits": 8}
        fused = ops.dual_shift_linear(x, *weight.tensors().values(), module.bias, **grid)
        assert torch.equal(module(x), fused)
    module.activation_bits = None
    assert torch.equal(module(x), exact(x))


def test_8_bit_activations_survive_copies_and_swaps():
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 48))
    report = swap_linears(model, DualShiftLinear, ignore=(), bits=4, group_size=32, activation_bits=8)
    assert len(report.swapped) == 2 and all("activation_bits=8" in text for text in report.swapped.values())
    assert [copy.deepcopy(model)[i].activation_bits for i in (0, 2)] == [8, 8]
    assert model.to(torch.bfloat16)[0].activation_bits == 8
    other = DualShiftLinear(model[0].packed_weight(), activation_bits=8)
    assert other.activation_bits == 8


def test_activation_bits_are_checked():
    _, module = make()
    with pytest.raises(ValueError, match="DualShiftLinear: activation_bits must be 8 or None, got 4"):
        module.activation_bits = 4
    rule = "activation_bits must be None unless the codebook is uniform, got 8"
    with pytest.raises(ValueError, match=f"DualShiftLinear: {rule}"):
        make(codebook="nf4", activation_bits=8)
    with pytest.raises(ValueError, match=f"BitmapLinear: {rule}"):
        BitmapLinear.from_linear(nn.Linear(8, 4), activation_bits=8)


def test_other_memory_formats_leave_packed_tensors_contiguous():
    _, module = make(n=40, k=130)
    before = module.to_dense()
    module.to(memory_format=torch.channels_last)
    assert module.codes.is_contiguous() and torch.equal(module.to_dense(), before)


def test_wrong_input_is_refused():
    _, module = make()
    with pytest.raises(ValueError, match=r"dual_shift_linear: x must have shape \[2, 130\], got \[2, 131\]"):
        module.fused(torch.zeros(2, 131))


def test_bias_of_the_wrong_shape_is_refused():
    _, module = make()
    with pytest.raises(ValueError, match=r"DualShiftLinear: bias must have shape \[48\], got \[3\]"):
        DualShiftLinear(module.packed_weight(), torch.zeros(3))
