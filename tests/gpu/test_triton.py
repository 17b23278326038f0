"""Every Triton kernel on the GPU, whatever fills the slot of its op, on a few odd shapes: `tests/triton` runs them by
the interpreter, here the real compiler and the real arithmetic do."""

import pytest
import torch

from bitmap_problems import dual_shift, mixed_mask
from dual_shift_cases import make_column_scale, make_exact, make_packed, make_weight
from prism_kernels import dispatch, ops, triton
from prism_kernels.formats import CsrWeight, TieredWeight
from prism_kernels.nn import DualShiftLinear
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.reference.bitmap_pack import bitmap_pack
from prism_kernels.reference.tiered import panel_offsets
from prism_kernels.testing import assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
    pytest.mark.skipif(not triton.is_installed(), reason="Triton is not installed"),
]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def on_gpu(op, *arguments, **options):
    """The public function on CUDA copies, by its Triton kernel; what it returns, on the CPU."""
    moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
    with dispatch.on_triton():
        result = getattr(ops, op)(*moved, **options)
    if isinstance(result, tuple):
        return tuple(part.cpu() for part in result)
    assert result.is_cuda
    return result.cpu()


def check_linear(m, n, k, bits, group_size, codebook, dtype, generator, activation_bits=None):
    key = (n, k, bits, group_size, codebook)
    packed, x = make_packed(*key), torch.randn(m, k, generator=generator).to(dtype)
    grid = {"n": n, "bits": bits, "group_size": group_size, "codebook": codebook}
    y = on_gpu("dual_shift_linear", x, *packed, **grid, activation_bits=activation_bits)
    if activation_bits is None:
        rounded = torch.float32 if group_size % 32 else dtype
        exact = (x.float() * packed[3].float()).to(rounded).double() @ make_exact(*key).T
    else:
        whole, token_scale = quantize_activations(x, packed[3])
        exact = token_scale.double() * (whole.double() @ make_exact(*key).T)
    assert y.dtype == dtype
    assert_matches(y, exact, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dual_shift_linear(generator, dtype):
    shapes = ((1, 33, 129, 64, 4), (17, 67, 1000, 32, 3), (70, 31, 257, 128, 8), (2, 9, 1009, 5, 4))
    for m, n, k, group_size, bits in shapes:
        check_linear(m, n, k, bits, group_size, "uniform", dtype, generator)
    check_linear(3, 40, 300, 4, 64, "uniform", dtype, generator, activation_bits=8)
    if dtype != torch.float16:
        check_linear(3, 40, 300, 4, 64 if dtype == torch.float32 else 5, "nf4", dtype, generator)


def test_sanitized_odd_shape_of_every_product(generator):
    check_linear(3, 37, 1100, 4, 64, "uniform", torch.bfloat16, generator)
    mask = mixed_mask(37, 300, generator)
    check_bitmaps(mask, 4, generator)


@pytest.mark.parametrize(("bits", "codebook"), [(2, "uniform"), (6, "uniform"), (4, "nf4")])
def test_dequantize_and_quantize(generator, bits, codebook):
    n, k = 33, 257
    packed, grid = make_packed(n, k, bits, 32, codebook), {"bits": bits, "group_size": 32, "codebook": codebook}
    for dtype in DTYPES:
        expected = ops.dual_shift_dequantize(*packed, n=n, **grid, dtype=dtype)
        assert torch.equal(on_gpu("dual_shift_dequantize", *packed, n=n, **grid, dtype=dtype), expected)
    weight, mask = make_weight(n, k, generator)
    arguments = weight, make_column_scale(k, generator), mask
    for a, e in zip(on_gpu("dual_shift_quantize", *arguments, **grid), ops.dual_shift_quantize(*arguments, **grid),
                    strict=True):  # fmt: skip
        assert torch.equal(a, e)


@pytest.mark.parametrize("variant", ["sinq", "prism", "rms"])
def test_sinkhorn(generator, variant):
    weight = torch.randn(2, 70, 300, generator=generator) * torch.randn(2, 1, 300, generator=generator).exp()
    mask = torch.rand(weight.shape, generator=generator) < 0.5
    expected = ops.sinkhorn(weight, mask, variant=variant, iterations=3)
    for a, e in zip(on_gpu("sinkhorn", weight, mask, variant=variant, iterations=3), expected, strict=True):
        assert float((a / e).log().abs().max()) < 1e-4


def test_obs_sweep(generator):
    for n, b in ((33, 65), (5, 128)):
        inputs = torch.randn(2 * b, b, generator=generator, dtype=torch.float64)
        hessian = inputs.T @ inputs / len(inputs) + 0.01 * torch.eye(b, dtype=torch.float64)
        factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).float().contiguous()
        weight = torch.randn(n, b, generator=generator)
        for options in ({"n_keep": 2, "m": 4}, {"n_keep": 2, "m": 4, "bits": 4, "group_size": 32}):
            expected = ops.obs_sweep(weight, factor, **options)
            for a, e in zip(on_gpu("obs_sweep", weight, factor, **options), expected, strict=True):
                assert torch.equal(a, e)


def check_bitmaps(mask, m, generator):
    n, k = mask.shape
    weight = torch.randn(n, k, generator=generator).bfloat16() * mask
    x, packed = torch.randn(m, k, generator=generator).bfloat16(), bitmap_pack(weight, mask)
    assert_matches(on_gpu("bitmap_linear", x, *packed, n=n), x.double() @ weight.double().T, k)
    assert torch.equal(on_gpu("bitmap_unpack", *packed, n=n, k=k), weight)
    for bits in (3, 4):
        quantized = dual_shift(mask, bits, 64, "uniform", generator)
        y = on_gpu("bitmap_dual_shift_linear", x, *quantized.tensors, **quantized.grid)
        scaled = (x.float() * quantized.column_scale.float()).bfloat16().double()
        assert_matches(y, scaled @ quantized.unscaled.T, k)
        decoded = on_gpu("bitmap_dual_shift_dequantize", *quantized.tensors, **quantized.grid, dtype=torch.float32)
        assert_matches(decoded, quantized.exact, 1)


def test_bitmaps(generator):
    for n, k, m in ((17, 65, 1), (70, 1100, 20)):
        check_bitmaps(mixed_mask(n, k, generator), m, generator)


def test_csr_tiers_masks_and_scores(generator):
    weight, x = torch.randn(50, 333, generator=generator), torch.randn(3, 333, generator=generator)
    rows = CsrWeight.pack(weight, mixed_mask(50, 333, generator))
    y = on_gpu("csr_linear", x, rows.values, rows.columns, rows.row_offsets)
    assert torch.equal(on_gpu("csr_unpack", rows.values, rows.columns, rows.row_offsets, 333), rows.to_dense())
    assert_matches(y, x.double() @ rows.to_dense().double().T, 333)
    tiers = torch.randint(4, (4, 21), generator=generator, dtype=torch.uint8)
    tiled = TieredWeight.pack(weight, tiers)
    stored = tiled.tiers, tiled.masks, tiled.values, panel_offsets(tiled.tiers, tiled.masks)
    assert torch.equal(on_gpu("tiered_unpack", *stored, 50, 333), tiled.to_dense())
    y = on_gpu("tiered_linear", x, *stored, n=50)
    assert_matches(y, x.double() @ tiled.to_dense().double().T, 333)
    for bits in (3, 4, 8):
        codes = torch.randint(2**bits, (50, 333), generator=generator, dtype=torch.uint8)
        packed = ops.dual_shift_pack(codes, bits)
        assert torch.equal(on_gpu("dual_shift_pack", codes, bits), packed)
        assert torch.equal(on_gpu("dual_shift_unpack", packed, 50, 333, bits), codes)
    ties = torch.randint(-3, 4, (50, 333), generator=generator).float()
    assert torch.equal(on_gpu("nm_mask", ties, 2, 4), ops.nm_mask(ties, 2, 4))
    for keep, scope in ((100, "row"), (5000, "matrix")):
        assert torch.equal(on_gpu("topk_mask", ties, keep, scope), ops.topk_mask(ties, keep, scope))
    assert_matches(on_gpu("block_scores", weight.abs()), ops.block_scores(weight.abs()).double(), 256)


def test_is_captured_in_a_graph(generator):
    module = DualShiftLinear.from_linear(torch.nn.Linear(4096, 128).bfloat16(), bits=4, group_size=64).cuda()
    x = torch.randn(2, 4096, generator=generator).bfloat16().cuda()
    with torch.inference_mode(), dispatch.on_triton():
        expected = module.fused(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = module.fused(x)
        graph.replay()
        torch.cuda.synchronize()
    assert torch.equal(captured, expected)
