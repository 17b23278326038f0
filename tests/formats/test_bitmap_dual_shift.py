"""BitmapDualShiftWeight: the grid's error, pruned is exactly 0, the byte formula, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.formats import BitmapDualShiftWeight, FormatError
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.panels import to_quads

SHAPES = [(1, 1), (3, 63), (17, 65), (2, 333), (0, 16), (3, 0)]


def column_scales(k, generator):
    return (0.5 + torch.rand(k, generator=generator)).bfloat16()


def byte_formula(mask, bits, group_size, codebook):
    n, k = mask.shape
    panels, groups = -(-n // 16), -(-k // group_size)
    kept = to_quads(mask, 4).sum(-1)
    zero = (8 if bits <= 4 else 16) if codebook == "uniform" else 0
    return panels * -(-k // 4) * 8 + int(((kept * bits + 7) // 8).sum()) + panels * groups * (32 + zero) + 2 * k


def levels_of(codes, codebook):
    return codes.float() if codebook == "uniform" else levels(codebook)[codes.int()]


def test_equals_the_quantized_weight_and_prunes_exactly(generator):
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
                    group = torch.arange(k) // group_size
                    steps = codes.float() - zero.float()[:, group] if zero.numel() else levels_of(codes, codebook)
                    expected = steps * scale.float()[:, group] * scales.float()
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


def test_column_scale_by_name(generator):
    weight, mask = torch.randn(16, 200, generator=generator), torch.rand(16, 200, generator=generator) < 0.5
    for method in ("none", "rms", "sinq", "prism"):
        packed = BitmapDualShiftWeight.pack(weight, mask, column_scale=method)
        error = (packed.to_dense() - torch.where(mask, weight, 0)).abs().max()
        assert error < 0.4, method


def test_size_at_half_sparsity(generator):
    """nbytes of an exactly 50 % random mask stays within 3.7 bits per weight, padding of quads included."""
    n, k = 256, 4096
    mask = torch.rand(n, k, generator=generator).argsort(1) < k // 2
    weight = torch.randn(n, k, generator=generator)
    packed = BitmapDualShiftWeight.pack(weight, mask, column_scale=column_scales(k, generator))
    assert packed.nbytes == byte_formula(mask, 4, 64, "uniform")
    column_bits = 16 / n  # of 256 rows; 16 / 14336 on the shape it stands for
    assert packed.bits_per_weight - column_bits <= 3.7


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
    (lambda t: t.update(bitmap=t["bitmap"][:-1]), r"bitmap must have shape \[2, 25, 8\], got \[1, 25, 8\]"),
    # Row 4 of the last panel, which has 4; bit 3 of a quad is its column 3, past column 99.
    (spoiled("bitmap", (1, 3, 2), 0x01), "bitmap must have 0 in the bits past row 20 and column 99, got 1 bytes"),
    (spoiled("bitmap", (0, 24, 0), 0x08), "bitmap must have 0 in the bits past row 20 and column 99, got 1 bytes"),
    (lambda t: t.update(codes=t["codes"].char()), "codes must have dtype uint8, got torch.int8"),
    (lambda t: t.update(codes=t["codes"][:-1]), r"codes must have shape \[\d+\], got \[\d+\]"),
    (lambda t: t.update(codes=torch.cat([t["codes"], t["codes"]])), r"codes must have shape \[\d+\], got \[\d+\]"),
    (spoiled("codes", -1, 0xFF), "codes must have 0 in the padding bits of a quad, got 1 quads with others"),
    (lambda t: t.update(scale=t["scale"].float()), "scale must have dtype bfloat16, got torch.float32"),
    (lambda t: t.update(scale=t["scale"][:, :1]), r"scale must have shape \[2, 2, 16\], got \[2, 1, 16\]"),
    (spoiled("scale", (0, 1, 2), 0.0), "scale must be finite and > 0, got 0.0"),
    (spoiled("scale", (0, 1, 2), -1.0), "scale must be finite and > 0, got -1.0"),
    (spoiled("scale", (0, 1, 2), float("inf")), "scale must be finite and > 0, got inf"),
    (spoiled("scale", (0, 1, 2), float("nan")), "scale must be finite and > 0, got nan"),
    (spoiled("scale", (1, 0, 4), 1.0), "scale must be 0 in the rows past 20"),
    (lambda t: t.update(zero=t["zero"].int()), "zero must have dtype uint8, got torch.int32"),
    (lambda t: t.update(zero=t["zero"][..., :0]), r"zero must have shape \[2, 2, 8\], got \[2, 2, 0\]"),
    (spoiled("zero", (0, 1, 3), 0x08), "zero must be below 8, got 8"),
    (spoiled("zero", (0, 1, 3), 0xF0), "zero must be below 8, got 15"),
    (spoiled("zero", (1, 0, 4), 0x01), "zero must be 0 in the rows past 20"),
    (lambda t: t.update(column_scale=t["column_scale"].half()), "column_scale must have dtype bfloat16"),
    (lambda t: t.update(column_scale=t["column_scale"][1:]), r"column_scale must have shape \[99\], got \[98\]"),
    (spoiled("column_scale", 7, 0.0), "column_scale must be finite and > 0, got 0.0"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_TENSORS)
def test_bad_tensors_are_refused(generator, spoil, message):
    mask = mixed_mask(20, 99, generator)
    mask[:, 96:] = False
    mask[19, 96] = True  # the last quad has one survivor of 3 bits: 5 padding bits
    weight = torch.randn(20, 99, generator=generator)
    packed = BitmapDualShiftWeight.pack(weight, mask, bits=3, column_scale=column_scales(99, generator))
    tensors = copy.deepcopy(packed.tensors())
    spoil(tensors)
    with pytest.raises(FormatError, match=f"bitmap_dual_shift: {message}"):
        BitmapDualShiftWeight.from_tensors(tensors, packed.config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [4, 99]}, "bits past row 4 and column 99"),
        ({"shape": [4, 96]}, r"bitmap must have shape \[1, 24, 8\], got \[1, 25, 8\]"),
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
