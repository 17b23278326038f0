"""The bitmap packers and decoders on the GPU against the same ops on the CPU, bit for bit."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, GROUPS, SHAPES, dual_shift, masks, mixed_mask
from prism_kernels import dispatch, ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

OPS = ("bitmap_pack", "bitmap_unpack", "bitmap_dual_shift_pack", "bitmap_dual_shift_dequantize")


def same(actual, expected):
    """Tensors of the GPU against those of the CPU, bit for bit."""
    assert [t.is_cuda for t in actual] == [True] * len(actual)
    return all(torch.equal(a.cpu(), b) for a, b in zip(actual, expected, strict=True))


def cuda(tensors):
    return tuple(t.cuda() for t in tensors)


def on_device(problem, dtype):
    return ops.bitmap_dual_shift_dequantize(*cuda(problem.tensors), **problem.grid, dtype=dtype)


@pytest.mark.parametrize("op", OPS)
def test_has_a_compiled_kernel(op):
    assert dispatch.has_compiled(op, "cuda")


def test_sanitized_odd_shape(generator):
    mask = mixed_mask(33, 203, generator)
    weight = torch.randn(33, 203, generator=generator).bfloat16()
    packed = ops.bitmap_pack(weight.cuda(), mask.cuda())
    assert torch.equal(ops.bitmap_unpack(*packed, 33, 203).cpu(), torch.where(mask, weight, 0))
    problem = dual_shift(mask, 3, 33, "uniform", generator)
    assert torch.equal(on_device(problem, torch.float32).cpu(), problem.exact.float())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values(generator, dtype):
    for shape in [*SHAPES, (50, 1030)]:
        weight = torch.randn(shape, generator=generator).to(dtype)
        for name, mask in masks(*shape, generator):
            expected = ops.bitmap_pack(weight, mask)
            packed = ops.bitmap_pack(weight.cuda(), mask.cuda())
            assert same(packed, expected), (shape, name)
            assert same([ops.bitmap_unpack(*packed, *shape)], [torch.where(mask, weight, 0)]), (shape, name)
        pruned = torch.where(mask, weight, -0.0)
        assert same(ops.bitmap_pack(pruned.cuda()), ops.bitmap_pack(pruned)), shape


def test_codes(generator):
    for shape in [*SHAPES, (50, 1030)]:
        codes = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        for name, mask in masks(*shape, generator):
            for bits in (2, 3, 4, 5, 6, 8):
                packed = ops.bitmap_dual_shift_pack(codes.cuda(), mask.cuda(), bits)
                assert same(packed, ops.bitmap_dual_shift_pack(codes, mask, bits)), (shape, name, bits)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dequantize(generator, dtype):
    for i, shape in enumerate(SHAPES):
        for bits, codebook in GRIDS:
            for group_size in GROUPS if shape == (33, 200) else GROUPS[i % 4 :: 4]:
                problem = dual_shift(mixed_mask(*shape, generator), bits, group_size, codebook, generator)
                expected = ops.bitmap_dual_shift_dequantize(*problem.tensors, **problem.grid, dtype=dtype)
                assert same([on_device(problem, dtype)], [expected]), (shape, problem.grid)


def test_panels_are_decoded_alone(generator):
    weight = torch.randn(67, 70, generator=generator).bfloat16().cuda()
    bitmap, values, offsets = ops.bitmap_pack(weight, mixed_mask(67, 70, generator).cuda())
    whole = ops.bitmap_unpack(bitmap, values, offsets, 67, 70)
    for first, last, n in ((0, 1, 16), (1, 3, 32), (2, 5, 35), (4, 5, 3)):
        part = ops.bitmap_unpack(bitmap[first:last], values, offsets[first : last + 1], n, 70)
        assert torch.equal(part, whole[16 * first : 16 * first + n])


def test_decoders_are_captured_and_compiled(generator):
    weight = torch.randn(67, 72, generator=generator).half().cuda()
    packed = ops.bitmap_pack(weight, mixed_mask(67, 72, generator).cuda())
    expected = ops.bitmap_unpack(*packed, 67, 72)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.bitmap_unpack(*packed, 67, 72)
    graph.replay()
    assert torch.equal(captured, expected)
    compiled = torch.compile(lambda *t: ops.bitmap_unpack(*t, 67, 72), fullgraph=True)
    assert torch.equal(compiled(*packed), expected)
