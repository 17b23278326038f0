"""TieredLinear and CsrLinear: drop-in behaviour, and canonical tensors whatever memory holds."""

import copy

import pytest
import torch
from torch import nn

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels.formats import CsrWeight
from prism_kernels.nn import CsrLinear, TieredLinear
from prism_kernels.swap import swap_linears
from prism_kernels.testing import assert_matches
from tiered_problems import tier_map

N, K = 37, 200
#: CSR above and below the density from which it is held in tiles.
KINDS = ["tiered", "csr", "sparse csr"]


def make(kind, generator, *, bias=True, dtype=torch.float32):
    linear = nn.Linear(K, N, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(N, K, generator=generator).to(dtype)
    if kind == "tiered":
        return TieredLinear.from_linear(linear, tiers=tier_map(N, K, generator))
    mask = mixed_mask(N, K, generator) if kind == "csr" else torch.rand(N, K, generator=generator) < 0.03
    mask[1, :2], linear.weight.data[1, 0] = True, 0.0  # a zero that the mask keeps
    return CsrLinear.from_linear(linear, mask)


def exact(module, x):
    y = x.double() @ module.to_dense().double().T
    return y if module.bias is None else y + module.bias.double()


@pytest.mark.parametrize("kind", KINDS)
def test_forward(kind, generator):
    for dtype in FLOATS:
        for bias in (True, False):
            module = make(kind, generator, bias=bias, dtype=dtype)
            for shape in ((K,), (1, K), (2, 3, K), (40, K), (0, K), (2, 0, K)):
                x = torch.randn(shape, generator=generator).to(dtype)
                y = module(x)
                assert y.dtype == dtype
                assert y.shape == (*shape[:-1], N)
                assert_matches(y.detach().reshape(-1, N), exact(module, x).detach().reshape(-1, N), K)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_by_rows(kind, generator):
    module = make(kind, generator)
    whole = module.decode(torch.float32)
    assert torch.equal(whole, module.to_dense())
    parts = [module.decode(torch.float32, begin, min(begin + 16, N)) for begin in range(0, N, 16)]
    assert torch.equal(torch.cat(parts), whole)
    x = torch.randn(2, 3, K, generator=generator)
    assert_matches(module._tiled(x, 16).detach(), exact(module, x).detach(), K)


@pytest.mark.parametrize("kind", KINDS)
def test_to_dtype_keeps_the_packed_tensors(kind, generator):
    module = make(kind, generator)
    before = {name: b.clone() for name, b in module.named_buffers()}
    module.to(torch.float16)
    assert module.bias.dtype == torch.float16
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name
        assert buffer.dtype == before[name].dtype, name
    assert module(torch.randn(2, K, generator=generator).half()).dtype == torch.float16


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_holds_the_canonical_tensors(kind, generator):
    module = make(kind, generator)
    state = module.state_dict()
    assert set(state) == {*module.packed_weight().tensors(), "bias"}
    assert module.nbytes == sum(t.numel() * t.element_size() for name, t in state.items() if name != "bias")
    assert module.nbytes == module.packed_weight().nbytes


def test_csr_comes_back_bit_for_bit(generator):
    for dtype in FLOATS:
        for density in (0.0, 0.05, 0.1, 0.5, 1.0):
            weight = torch.randn(N, K, generator=generator).to(dtype)
            weight[0, :3] = torch.tensor([0.0, -0.0, torch.nan])
            mask = torch.rand(N, K, generator=generator) < density
            mask[0, :3] = True
            packed = CsrWeight.pack(weight, mask)
            module = CsrLinear(packed)
            assert module.in_tiles == (packed.values.numel() >= N * K / 16)
            again = module.packed_weight()
            as_bits = torch.int32 if dtype == torch.float32 else torch.int16
            assert torch.equal(again.values.view(as_bits), packed.values.view(as_bits))
            assert torch.equal(again.columns, packed.columns)
            assert torch.equal(again.row_offsets, packed.row_offsets)


def test_csr_holds_what_is_smaller(generator):
    for density in (0.02, 0.5):
        mask = torch.rand(512, 512, generator=generator) < density
        module = CsrLinear(CsrWeight.pack(torch.randn(512, 512, generator=generator).bfloat16(), mask))
        assert module.resident_nbytes <= module.nbytes
        assert ("in tiles" in repr(module)) == (density == 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("assign", [False, True])
def test_loading_another_mask(kind, generator, assign):
    source, target = make(kind, generator), make("csr" if kind == "sparse csr" else kind, generator)
    wrapped = nn.Sequential(target)
    wrapped.load_state_dict({f"0.{k}": v.clone() for k, v in source.state_dict().items()}, assign=assign)
    assert torch.equal(source.to_dense(), target.to_dense())
    x = torch.randn(1, K, generator=generator)
    assert torch.equal(source(x), target(x))
    assert target.nbytes == source.nbytes


@pytest.mark.parametrize(("kind", "name"), [("tiered", "tiers"), ("csr", "row_offsets"), ("sparse csr", "columns")])
def test_loading_bad_tensors_is_an_error(kind, name, generator):
    module = make(kind, generator)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state[name][0] = 99 if kind == "tiered" else -1
    with pytest.raises(RuntimeError, match=f"{module.FORMAT.NAME}: {name} must"):
        module.load_state_dict(state)
    del state[name]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
        module.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"other"'):
        module.load_state_dict({**module.state_dict(), "other": torch.ones(1)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [1, 40])
def test_compiles_to_one_graph(kind, generator, m):
    module = make(kind, generator, dtype=torch.bfloat16)
    x = torch.randn(m, K, generator=generator).bfloat16()
    torch.compiler.reset()  # all classes share one forward, whose number of compilations is limited
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_input_and_bias_only(kind, generator):
    module = make(kind, generator)
    x = torch.randn(4, K, generator=generator, requires_grad=True)
    module(x).sum().backward()
    assert_matches(x.grad, torch.ones(4, N, dtype=torch.float64) @ module.to_dense().double(), N)
    assert torch.equal(module.bias.grad, torch.full((N,), 4.0))
    assert [name for name, _ in module.named_parameters()] == ["bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_deepcopy_is_independent(kind, generator):
    module = make(kind, generator)
    x = torch.randn(1, K, generator=generator)
    expected = module(x).clone()
    twin = copy.deepcopy(module)
    for buffer in module.buffers():
        buffer.zero_()
    assert torch.equal(twin(x), expected)


def test_swap(generator):
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20))
    masks = {"0": torch.rand(30, 40, generator=generator) < 0.5, "2": torch.rand(20, 30, generator=generator) < 0.01}
    x = torch.randn(3, 40, generator=generator)
    report = swap_linears(model, CsrLinear, masks=masks)
    assert set(report.swapped) == {"0", "2"}
    assert torch.equal(model[0].packed_weight().kept(), masks["0"])
    assert model(x).shape == (3, 20)
