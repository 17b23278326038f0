"""sparse24_pack and sparse24_unpack on the device against the reference on the CPU."""

import pytest
import torch

from bitmap_problems import SHAPES, quad_mask
from prism_kernels import ops
from prism_kernels.reference.sparse24_pack import sparse24_pack as reference_pack
from prism_kernels.reference.sparse24_unpack import sparse24_unpack as reference_unpack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
DTYPES = (torch.float16, torch.bfloat16, torch.uint8)


def random_weight(n, k, dtype, generator):
    if dtype == torch.uint8:
        return torch.randint(16, (n, k), generator=generator, dtype=torch.uint8)
    return torch.randn(n, k, generator=generator).to(dtype)


def check(n, k, dtype, density, generator):
    weight, mask = random_weight(n, k, dtype, generator), quad_mask(n, k, generator, density)
    packed = ops.sparse24_pack(weight.cuda(), mask.cuda())
    for actual, expected in zip(packed, reference_pack(weight, mask), strict=True):
        assert torch.equal(actual.cpu(), expected), (n, k, dtype, density)
    expected = reference_unpack(*(t.cpu() for t in packed), n, k)
    assert torch.equal(ops.sparse24_unpack(*packed, n, k).cpu(), expected), (n, k, dtype, density)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(poison, generator, dtype):
    for n, k in [*SHAPES, (304, 4096)]:
        for density in (1.0, 0.6, 0.0):
            check(n, k, dtype, density, generator)


def test_sanitized_odd_shape(generator):
    check(17, 65, torch.bfloat16, 1.0, generator)
    check(17, 65, torch.uint8, 1.0, generator)


def test_captures_and_compiles(generator):
    weight, mask = torch.randn(33, 200, generator=generator).half().cuda(), quad_mask(33, 200, generator).cuda()

    def call():
        return ops.sparse24_unpack(*ops.sparse24_pack(weight, mask), 33, 200)

    expected = call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    graph.replay()
    compiled = torch.compile(call, fullgraph=True)()
    assert torch.equal(captured, expected) and torch.equal(compiled, expected)
