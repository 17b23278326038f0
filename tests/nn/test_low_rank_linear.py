"""LowRankLinear: alone and added to every other packed linear."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.formats import (
    BitmapDualShiftWeight,
    BitmapWeight,
    CsrWeight,
    DualShiftWeight,
    Sparse24Weight,
    TieredWeight,
)
from prism_kernels.nn import LowRankLinear
from prism_kernels.testing import max_error

N, K, RANK = 37, 200, 12
BASES = [None, BitmapDualShiftWeight, BitmapWeight, CsrWeight, DualShiftWeight, Sparse24Weight, TieredWeight]


def make(kind, generator, *, bias=True, dtype=torch.float32, rank=RANK):
    linear = nn.Linear(K, N, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(N, K, generator=generator).to(dtype)
    mask = ops.nm_mask(linear.weight.data.float().abs(), 2, 4)
    base = None if kind is None else kind.pack(linear.weight.data, mask=mask)
    return LowRankLinear.from_linear(linear, rank=rank, base=base)


@pytest.mark.parametrize("kind", BASES)
def test_forward_on_both_sides_of_the_crossover(kind, generator):
    for dtype in FLOATS:
        for bias in (True, False):
            module = make(kind, generator, bias=bias, dtype=dtype)
            for shape in ((K,), (1, K), (2, 3, K), (40, K), (0, K)):
                x = torch.randn(shape, generator=generator).to(dtype)
                y = module(x)
                assert y.dtype == dtype
                assert y.shape == (*shape[:-1], N)
                dense = module.to_dense(torch.float32).double()
                expected = F.linear(x.double(), dense, None if module.bias is None else module.bias.double())
                # two terms and a hidden vector are rounded where a plain linear rounds one result
                limit = 4e-6 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
                assert max_error(y.detach().reshape(-1, N), expected.detach().reshape(-1, N)) <= limit


@pytest.mark.parametrize("kind", BASES)
def test_state_dict_is_complete(kind, generator):
    module, other = make(kind, generator), make(kind, generator, rank=5)
    state = module.state_dict()
    assert set(state) == {*module.packed_weight().tensors(), "bias"}
    assert module.nbytes == sum(t.numel() * t.element_size() for name, t in state.items() if name != "bias")
    nn.Sequential(other).load_state_dict({f"0.{key}": value.clone() for key, value in state.items()})
    assert torch.equal(other.to_dense(), module.to_dense())
    assert other.config == module.config
    x = torch.randn(1, K, generator=generator)
    assert torch.equal(other(x), module(x))


def test_decode_by_rows(generator):
    module = make(BitmapWeight, generator)
    parts = [module.decode(torch.float32, begin, min(begin + 16, N)) for begin in range(0, N, 16)]
    torch.testing.assert_close(torch.cat(parts), module.to_dense(), rtol=1e-5, atol=1e-5)


def test_factors_that_do_not_meet_are_refused(generator):
    module = make(None, generator)
    state = {**module.state_dict(), "a": torch.ones(3, K)}
    with pytest.raises(RuntimeError, match="LowRankLinear: low_rank: b must have 3 columns, got 12"):
        module.load_state_dict(state)


def test_activation_bits_are_those_of_the_base(generator):
    module = make(DualShiftWeight, generator)
    assert module.activation_bits is None
    module.activation_bits = 8
    assert module.base.activation_bits == 8
    with pytest.raises(ValueError, match="LowRankLinear: activation_bits must be None without a quantized base, got 8"):
        make(None, generator).activation_bits = 8


@pytest.mark.parametrize("kind", [None, BitmapWeight])
@pytest.mark.parametrize("m", [1, 40])
def test_compiles_to_one_graph(kind, generator, m):
    module = make(kind, generator, dtype=torch.bfloat16)
    x = torch.randn(m, K, generator=generator).bfloat16()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("kind", [None, BitmapWeight])
def test_gradients_reach_input_and_bias_only(kind, generator):
    for m in (1, 40):
        module = make(kind, generator)
        x = torch.randn(m, K, generator=generator, requires_grad=True)
        module(x).sum().backward()
        expected = torch.ones(m, N, dtype=torch.float64) @ module.to_dense().double()
        assert max_error(x.grad, expected) < 1e-5
        assert torch.equal(module.bias.grad, torch.full((N,), float(m)))
        assert [name for name, _ in module.named_parameters()] == ["bias"]


def test_deepcopy_and_repr(generator):
    module = make(BitmapWeight, generator)
    x = torch.randn(1, K, generator=generator)
    expected = module(x).clone()
    twin = copy.deepcopy(module)
    module.a.zero_()
    module.base.values.zero_()
    assert torch.equal(twin(x), expected)
    assert "200 -> 37, low_rank(rank=12, base=" in repr(module)
