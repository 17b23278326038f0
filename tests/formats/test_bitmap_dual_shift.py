"""BitmapDualShiftWeight: the grid's error, pruned is exactly 0, the byte formula, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.formats import BitmapDualShiftWeight, FormatError

SHAPES = [(1, 1), (3, 63), (5, 65), (2, 333), (0, 16), (3, 0)]


def column_scales(k, generator):
    return (0.5 + torch.rand(k, generator=generator)).bfloat16()


def byte_formula(mask, bits, group_size, codebook):
    n, k = mask.shape
    blocks, groups = -(-k // 64), -(-k // group_size)
    kept = torch.nn.functional.pad(mask, (0, -k % 64)).reshape(n, blocks, 64).sum(-1)
    zero = (groups * bits + 7) // 8 if codebook == "uniform" else 0
    return n * 8 * blocks + int(((kept * bits + 7) // 8).sum()) + n * (2 * groups + zero) + 2 * k


def test_equals_the_dense_format_and_prunes_exactly(generator):
    for n, k in SHAPES:
        for bits, codebook in GRIDS:
            for group_size in (5, 64):
                for name, mask in masks(n, k, generator):
                    weight = torch.randn(n, k, generator=generator)
                    options = {"bits": bits, "group_size": group_size, "codebook": codebook}
                    scales = column_scales(k, generator)
                    packed = BitmapDualShiftWeight.pack(weight, mask, column_scale=scales, **options)
                    assert packed.shape == (n, k)
                    assert packed.nbytes == byte_formula(mask, bits, group_size, codebook), (n, k, options, name)
                    codes, scale, zero = ops.dual_shift_quantize(weight, scales, mask, **options)
                    tensors = (ops.pack_codes(codes, bits), scale, ops.pack_codes(zero, bits), scales)
                    expected = ops.dual_shift_dequantize(*tensors, **options, dtype=torch.float32)
                    dense = packed.to_dense()
                    assert torch.equal(dense, torch.where(mask, expected, 0)), (n, k, options, name)
                    assert not dense[~mask].any()
                    again = BitmapDualShiftWeight.from_tensors(packed.tensors(), packed.config())
                    assert torch.equal(again.to_dense(torch.bfloat16), dense.bfloat16())


def test_default_mask_is_the_non_zeros(generator):
    for dtype in FLOATS:
        weight = torch.randn(8, 100, generator=generator).to(dtype)
        weight[weight.abs() < 0.5] = 0
        packed = BitmapDualShiftWeight.pack(weight, column_scale=column_scales(100, generator))
        assert (
            packed.bitmap.sum()
            == BitmapDualShiftWeight.pack(weight, weight != 0, column_scale=column_scales(100, generator)).bitmap.sum()
        )
        assert not packed.to_dense()[weight == 0].any()


@pytest.mark.skipif(not hasattr(ops, "column_scale"), reason="needs ops.column_scale")
def test_column_scale_by_name(generator):
    weight, mask = torch.randn(16, 200, generator=generator), torch.rand(16, 200, generator=generator) < 0.5
    for method in ("none", "rms", "sinq", "prism"):
        packed = BitmapDualShiftWeight.pack(weight, mask, column_scale=method)
        error = (packed.to_dense() - torch.where(mask, weight, 0)).abs().max()
        assert error < 0.4, method


def test_size_at_half_sparsity(generator):
    """nbytes of an exactly 50 % random mask stays within 3.45 bits per weight, padding of blocks included."""
    n, k = 256, 4096
    mask = torch.rand(n, k, generator=generator).argsort(1) < k // 2
    weight = torch.randn(n, k, generator=generator)
    packed = BitmapDualShiftWeight.pack(weight, mask, column_scale=column_scales(k, generator))
    assert packed.nbytes == byte_formula(mask, 4, 64, "uniform")
    column_bits = 16 / n  # of 256 rows; 16 / 14336 on the shape it stands for
    assert packed.bits_per_weight - column_bits <= 3.45


def test_non_finite_survivors_are_refused():
    weight = torch.ones(2, 4)
    weight[0, 0] = float("nan")
    scales = torch.ones(4).bfloat16()
    with pytest.raises(ValueError, match=r"BitmapDualShiftWeight.pack: weight must be finite where it is kept"):
        BitmapDualShiftWeight.pack(weight, column_scale=scales)
    mask = torch.ones(2, 4).bool()
    mask[0, 0] = False
    assert BitmapDualShiftWeight.pack(weight, mask, column_scale=scales).to_dense()[0, 0] == 0


@pytest.mark.parametrize(("what", "value"), [("codes", 16), ("zero", 16)])
def test_codes_above_the_grid_are_refused(what, value):
    tensors = {"codes": torch.zeros(2, 4).byte(), "zero": torch.zeros(2, 1).byte()}
    tensors[what][1, 0] = value
    arguments = (tensors["codes"], torch.ones(2, 4).bool(), torch.ones(2, 1).bfloat16(), tensors["zero"])
    with pytest.raises(FormatError, match=f"bitmap_dual_shift: {what} must be below 16, got 16"):
        BitmapDualShiftWeight.from_codes(*arguments, torch.ones(4).bfloat16(), bits=4, group_size=64)


def spoiled(name, index, value):
    def spoil(tensors):
        tensors[name][index] = value

    return spoil


BAD_TENSORS = [
    (lambda t: t.pop("codes"), "tensors must be bitmap, codes, scale, zero, column_scale, got"),
    (lambda t: t.update(extra=t["codes"]), "tensors must be bitmap, codes, scale, zero, column_scale, got"),
    (lambda t: t.update(bitmap=t["bitmap"].int()), "bitmap must have dtype uint8, got torch.int32"),
    (lambda t: t.update(bitmap=t["bitmap"][:-1]), r"bitmap must have shape \[4, 16\], got \[3, 16\]"),
    (spoiled("bitmap", (1, 12), 0xF0), "bitmap must have 0 in the bits past column 100, got 1 bytes"),
    (lambda t: t.update(codes=t["codes"].char()), "codes must have dtype uint8, got torch.int8"),
    (lambda t: t.update(codes=t["codes"][:-1]), r"codes must have shape \[\d+\], got \[\d+\]"),
    (lambda t: t.update(codes=torch.cat([t["codes"], t["codes"]])), r"codes must have shape \[\d+\], got \[\d+\]"),
    (spoiled("codes", -1, 0xFF), "codes must have 0 in the padding bits of a block, got 1 blocks with others"),
    (lambda t: t.update(scale=t["scale"].float()), "scale must have dtype bfloat16, got torch.float32"),
    (lambda t: t.update(scale=t["scale"][:, :1]), r"scale must have shape \[4, 2\], got \[4, 1\]"),
    (spoiled("scale", (2, 1), 0.0), "scale must be finite and > 0, got 0.0"),
    (spoiled("scale", (2, 1), -1.0), "scale must be finite and > 0, got -1.0"),
    (spoiled("scale", (2, 1), float("inf")), "scale must be finite and > 0, got inf"),
    (spoiled("scale", (2, 1), float("nan")), "scale must be finite and > 0, got nan"),
    (lambda t: t.update(zero=t["zero"].int()), "zero must have dtype uint8, got torch.int32"),
    (lambda t: t.update(zero=t["zero"][:, :0]), r"zero must have shape \[4, 1\], got \[4, 0\]"),
    (spoiled("zero", (3, 0), 0xC0), "zero must have 0 in its unused bits"),
    (lambda t: t.update(column_scale=t["column_scale"].half()), "column_scale must have dtype bfloat16"),
    (lambda t: t.update(column_scale=t["column_scale"][1:]), r"column_scale must have shape \[100\], got \[99\]"),
    (spoiled("column_scale", 7, 0.0), "column_scale must be finite and > 0, got 0.0"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_TENSORS)
def test_bad_tensors_are_refused(generator, spoil, message):
    mask = mixed_mask(4, 100, generator)
    mask[3] = True
    mask[3, 64] = False  # 35 survivors of 3 bits in the last block: 7 padding bits
    weight = torch.randn(4, 100, generator=generator)
    packed = BitmapDualShiftWeight.pack(weight, mask, bits=3, column_scale=column_scales(100, generator))
    tensors = copy.deepcopy(packed.tensors())
    spoil(tensors)
    with pytest.raises(FormatError, match=f"bitmap_dual_shift: {message}"):
        BitmapDualShiftWeight.from_tensors(tensors, packed.config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [4, 99]}, r"column_scale must have shape \[99\], got \[100\]|bits past column 99"),
        ({"shape": [4, 1.5]}, r"shape must be two sizes \[n, k\]"),
        ({"bits": 7}, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ({"bits": "4"}, "bits must be one of 2, 3, 4, 5, 6, 8, got '4'"),
        ({"group_size": 0}, "group_size must be an integer >= 1, got 0"),
        ({"group_size": 64.0}, "group_size must be an integer >= 1, got 64.0"),
        ({"codebook": "fp4"}, "codebook must be one of uniform, nf4, nf3, got 'fp4'"),
        ({"codebook": "nf3"}, "bits must be 3 for codebook 'nf3', got 4"),
        ({"other": 1}, "config must have shape, bits, group_size, codebook, got"),
    ],
)
def test_bad_configs_are_refused(generator, changes, message):
    weight = torch.ones(4, 100)
    packed = BitmapDualShiftWeight.pack(weight, column_scale=column_scales(100, generator))
    with pytest.raises(FormatError, match=message):
        BitmapDualShiftWeight.from_tensors(packed.tensors(), packed.config() | changes)
