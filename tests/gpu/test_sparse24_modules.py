"""The 2:4 linears on the device: packing where a weight lands, every path over tokens, exact state dicts."""

import pytest
import torch
from torch import nn

from bitmap_problems import quad_mask
from prism_kernels import dispatch
from prism_kernels.nn import Sparse24DualShiftLinear, Sparse24Linear
from prism_kernels.testing import assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
CLASSES = [Sparse24Linear, Sparse24DualShiftLinear]
#: Both sides of the crossovers to the dense product and to cuSPARSELt.
TOKENS = (0, 1, 8, 9, 64, 65, 300, 1023, 1024, 1027, 4099)


def make(module_class, generator, n=304, k=1040, dtype=torch.bfloat16, bias=True):
    linear = nn.Linear(k, n, bias=bias, dtype=dtype)
    linear.weight.data = torch.randn(n, k, generator=generator).to(dtype)
    return module_class.from_linear(linear, quad_mask(n, k, generator, 0.9))


def exact(module, x):
    """float64, of the decoded weight; the tolerance holds the roundings of x * column_scale or of the weight."""
    y = x.double() @ module.to_dense().double().T
    return y if module.bias is None else y + module.bias.double()


@pytest.mark.parametrize("module_class", CLASSES)
@torch.no_grad()
def test_every_number_of_tokens(module_class, generator):
    for dtype in (torch.float16, torch.bfloat16):
        for n, k in ((304, 1040), (37, 201)):
            module = make(module_class, generator, n, k, dtype).cuda()
            assert module.packed is not None
            for m in TOKENS:
                x = torch.randn(m, k, generator=generator).to(dtype).cuda()
                assert_matches(module(x), exact(module, x), k)


@pytest.mark.parametrize("module_class", CLASSES)
@torch.no_grad()
def test_float32_activations_run_as_a_bitmap(module_class, generator):
    module = make(module_class, generator).cuda().float()
    x = torch.randn(3, 1040, generator=generator).cuda()
    assert_matches(module(x), exact(module, x), 1040)


@pytest.mark.parametrize("module_class", CLASSES)
def test_moving_changes_no_byte(module_class, generator):
    module = make(module_class, generator, 37, 201)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    dense = module.to_dense()
    module.cuda()
    assert set(module.state_dict()) == set(before)
    assert all(torch.equal(t.cpu(), before[name]) for name, t in module.state_dict().items())
    assert torch.equal(module.to_dense().cpu(), dense)
    module.cpu()
    assert module.packed is None
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


@pytest.mark.parametrize("module_class", CLASSES)
@torch.no_grad()
def test_loading_on_the_device_packs_again(module_class, generator):
    source, target = make(module_class, generator), make(module_class, generator).cuda()
    target.load_state_dict(source.state_dict())
    x = torch.randn(2, 1040, generator=generator).bfloat16().cuda()
    assert torch.equal(target(x), source.cuda()(x))


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("m", [1, 33, 200, 2048])
@torch.no_grad()
def test_captures_and_compiles(module_class, generator, m):
    module = make(module_class, generator).cuda()
    x = torch.randn(m, 1040, generator=generator).bfloat16().cuda()
    expected = module(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = module(x)
    graph.replay()
    assert torch.equal(captured, expected)
    torch.compiler.reset()
    assert_matches(torch.compile(module, fullgraph=True)(x), exact(module, x), 1040)


@torch.no_grad()
def test_cusparselt_serves_where_the_table_says(generator, monkeypatch):
    if not torch.backends.cusparselt.is_available():
        pytest.skip("this torch carries no cuSPARSELt")
    module = make(Sparse24Linear, generator).cuda()
    small = module.resident_nbytes
    called = []
    multiply = torch._cslt_sparse_mm
    monkeypatch.setattr(torch, "_cslt_sparse_mm", lambda *a, **k: called.append(1) or multiply(*a, **k))
    least = dispatch.cusparselt_crossover("sparse24_linear")
    for m, calls in ((least - 1, 0), (least, 1)):
        module(torch.randn(m, 1040, generator=generator).bfloat16().cuda())
        assert len(called) == calls and (module.compressed is None) == (calls == 0)
    module.cusparselt = False
    assert module.resident_nbytes == small


@torch.no_grad()
def test_a_captured_call_makes_no_copy_for_cusparselt(captured, generator):
    module = make(Sparse24Linear, generator).cuda()
    x, other = torch.randn(2, 2048, 1040, generator=generator).bfloat16().cuda()
    module.cusparselt = False
    expected = module(other)
    graph = torch.cuda.CUDAGraph()
    module.cusparselt = True
    with torch.cuda.graph(graph):
        y = module(x)
    assert module.compressed is None
    x.copy_(other)
    graph.replay()
    assert torch.equal(y, expected)
    if module.prepare_cusparselt():
        assert_matches(captured(module, x, other), exact(module, other), 1040)
