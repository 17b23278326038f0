"""PermutedLinear: the input in the order of the packed columns, then the base."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.nn import LowRankLinear, PermutedLinear
from prism_kernels.testing import max_error

N, K = 37, 200
BASES = {
    "bitmap": {},
    "sparse24": {},
    "bitmap_dual_shift": {"bits": 4, "group_size": 64},
    "sparse24_dual_shift": {"bits": 4, "group_size": 64},
}


def make(base, generator, *, bias=True, dtype=torch.float32):
    linear = nn.Linear(K, N, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(N, K, generator=generator).to(dtype)
    index, mask = torch.randperm(K, generator=generator), torch.zeros(N, K, dtype=torch.bool)
    mask[:, index] = ops.nm_mask(linear.weight.data[:, index].float().abs().contiguous(), 2, 4)
    return PermutedLinear.from_linear(linear, mask, index=index, base=base, **BASES[base])


@pytest.mark.parametrize("base", BASES)
def test_forward_on_both_sides_of_the_crossover(base, generator):
    for dtype in FLOATS:
        for bias in (True, False):
            module = make(base, generator, bias=bias, dtype=dtype)
            for shape in ((K,), (1, K), (2, 3, K), (40, K), (0, K)):
                x = torch.randn(shape, generator=generator).to(dtype)
                y = module(x)
                assert y.dtype == dtype and y.shape == (*shape[:-1], N)
                dense = module.to_dense(torch.float32).double()
                expected = F.linear(x.double(), dense, None if module.bias is None else module.bias.double())
                # with a bias two results are rounded; codes and scales of a quantized base meet x in its dtype
                limit = 4e-6 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
                assert max_error(y.detach().reshape(-1, N), expected.detach().reshape(-1, N)) <= limit


@pytest.mark.parametrize("base", BASES)
def test_state_dict_is_complete(base, generator):
    module, other = make(base, generator), make(base, generator)
    state = module.state_dict()
    assert set(state) == {*module.packed_weight().tensors(), "bias"}
    assert module.nbytes == sum(t.nbytes for name, t in state.items() if name != "bias")
    nn.Sequential(other).load_state_dict({f"0.{key}": value.clone() for key, value in state.items()})
    assert torch.equal(other.to_dense(), module.to_dense())
    x = torch.randn(3, K, generator=generator)
    assert torch.equal(other(x), module(x))
    for spoilt in (state["index"].clamp(max=5), state["index"].long(), state["index"][:-1]):
        with pytest.raises(RuntimeError, match="PermutedLinear: permuted: index must"):
            other.load_state_dict(state | {"index": spoilt})


def test_moving_keeps_the_index(generator):
    module = make("bitmap", generator).to(torch.float64).bfloat16()
    assert module.index.dtype == torch.int32 and module.base.values.dtype == torch.float32
    twin = copy.deepcopy(module)
    module.index.zero_()
    assert len(set(twin.index.tolist())) == K
    assert "200 -> 37, permuted(base=" in repr(twin) and "sparse" not in twin.served_by()


def test_decode_by_rows(generator):
    module = make("sparse24", generator)
    parts = [module.decode(torch.float32, begin, min(begin + 16, N)) for begin in range(0, N, 16)]
    assert torch.equal(torch.cat(parts), module.to_dense())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("m", [1, 40])
def test_compiles_to_one_graph(base, generator, m):
    torch.compiler.reset()  # all bases share one forward, whose number of compilations is limited
    module = make(base, generator, dtype=torch.bfloat16)
    x = torch.randn(m, K, generator=generator).bfloat16()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


def test_gradients_reach_input_and_bias_only(generator):
    for m in (1, 40):
        module = make("bitmap", generator)
        x = torch.randn(m, K, generator=generator, requires_grad=True)
        module(x).sum().backward()
        assert max_error(x.grad, torch.ones(m, N, dtype=torch.float64) @ module.to_dense().double()) < 1e-5
        assert torch.equal(module.bias.grad, torch.full((N,), float(m)))
        assert [name for name, _ in module.named_parameters()] == ["bias"]


def test_activation_bits_are_those_of_the_base(generator):
    module = make("bitmap_dual_shift", generator)
    assert module.activation_bits is None
    module.activation_bits = 8
    assert module.base.activation_bits == 8


def test_under_a_low_rank_correction(generator):
    base = make("sparse24", generator, bias=False)
    linear = nn.Linear(K, N, bias=False)
    module = LowRankLinear.from_linear(linear, rank=4, base=base.packed_weight())
    x = torch.randn(5, K, generator=generator)
    assert max_error(module(x).detach(), (x @ module.to_dense().T).double()) < 1e-5
    state = module.state_dict()
    assert "base.index" in state and "base.base.values" in state
    module.load_state_dict(state)
