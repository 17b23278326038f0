"""DualShiftWeight: round trips, byte counts, exact zeros, and every rule of validate()."""

import dataclasses

import pytest
import torch

from prism_kernels import ops
from prism_kernels.formats import DualShiftWeight, FormatError

GRIDS = [*((bits, "uniform") for bits in (2, 3, 4, 5, 6, 8)), (4, "nf4"), (3, "nf3")]


def column_scale_of(k, generator):
    return (torch.rand(k, generator=generator) + 0.5).bfloat16()


def pack(n, k, generator, mask=None, **options):
    weight = torch.randn(n, k, generator=generator)
    return DualShiftWeight.pack(weight, mask, column_scale=column_scale_of(k, generator), **options)


def test_literal():
    weight = torch.tensor([[-1.0, 0.0, 2.0, 1.0]])
    packed = DualShiftWeight.pack(weight, bits=2, group_size=4, column_scale=torch.ones(4).bfloat16())
    assert packed.codes.shape == (1, 1, 2, 64)
    assert packed.codes[0, 0, 0, :4].tolist() == [0, 3, 1, 2] and int(packed.codes.count_nonzero()) == 3
    assert packed.scale.tolist() == [[[1.0] + 15 * [0.0]]]
    assert packed.zero.tolist() == [[[1] + 7 * [0]]]
    assert torch.equal(packed.to_dense(), weight)
    assert packed.to_dense(torch.bfloat16).dtype == torch.bfloat16
    assert packed.config() == {"shape": [1, 4], "bits": 2, "group_size": 4, "codebook": "uniform"}


def test_scales_and_zero_points_of_every_row(generator):
    """Row r of panel p is lane r; up to 4 bits rows r and r + 8 share a byte."""
    for bits in (4, 6):
        codes = torch.zeros(21, 3, dtype=torch.uint8)
        scale = torch.rand(21, 2, generator=generator).add(0.5).bfloat16()
        zero = torch.randint(0, 2**bits, (21, 2), generator=generator, dtype=torch.uint8)
        packed = DualShiftWeight.from_codes(codes, scale, zero, torch.ones(3).bfloat16(), bits=bits, group_size=2)
        assert packed.scale.shape == (2, 2, 16) and packed.zero.shape == (2, 2, 8 if bits == 4 else 16)
        for row in range(21):
            for group in range(2):
                stored = packed.zero[row // 16, group, row % (8 if bits == 4 else 16)]
                stored = stored >> 4 if bits == 4 and row % 16 >= 8 else stored & (2**bits - 1)
                assert stored == zero[row, group] and packed.scale[row // 16, group, row % 16] == scale[row, group]


def test_round_trip_and_byte_count(generator):
    for bits, codebook in GRIDS:
        for n, k, group in ((3, 7, 64), (17, 130, 32), (16, 64, 64), (0, 8, 4), (2, 0, 4), (33, 65, 5)):
            packed = pack(n, k, generator, bits=bits, codebook=codebook, group_size=group)
            again = DualShiftWeight.from_tensors(packed.tensors(), packed.config())
            assert again.config() == packed.config() and again.shape == (n, k)
            assert torch.equal(again.to_dense(), packed.to_dense())
            panels, groups = -(-n // 16), -(-k // group)
            zero_bytes = 0 if codebook != "uniform" else 8 if bits <= 4 else 16
            expected = panels * (64 * bits * -(-k // 32) + groups * (32 + zero_bytes)) + 2 * k
            assert packed.nbytes == expected
            assert packed.bits_per_weight == 8 * packed.nbytes / max(n * k, 1)


def test_documented_bits_per_weight(generator):
    packed = pack(512, 1024, generator, bits=4, group_size=64)
    assert packed.bits_per_weight == 4 + 20 / 64 + 16 / 512


def test_pruned_weights_decode_to_exactly_zero(generator):
    for bits, codebook in GRIDS:
        mask = torch.rand(9, 131, generator=generator) < 0.5
        mask[2] = False
        mask[:, 5] = False
        mask[4] = False
        mask[4, 130] = True
        packed = pack(9, 131, generator, mask, bits=bits, codebook=codebook, group_size=48)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            assert bool((packed.to_dense(dtype)[~mask] == 0).all()), (bits, codebook)


def test_8_bit_codes_of_128_and_more_survive():
    codes = torch.arange(256, dtype=torch.uint8).reshape(2, 128)
    scale, zero = torch.ones(2, 2).bfloat16(), torch.tensor([[0, 255], [128, 7]], dtype=torch.uint8)
    packed = DualShiftWeight.from_codes(codes, scale, zero, torch.ones(128).bfloat16(), bits=8, group_size=64)
    expected = codes.float() - zero.float().repeat_interleave(64, dim=1)
    assert torch.equal(packed.to_dense(), expected)


def test_error_shrinks_with_bits(generator):
    weight = torch.randn(64, 256, generator=generator)
    scale = torch.ones(256).bfloat16()
    errors = [
        float((DualShiftWeight.pack(weight, bits=b, column_scale=scale).to_dense() - weight).norm() / weight.norm())
        for b in (2, 3, 4, 5, 6, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.12 and errors[-1] < 0.01


def test_non_finite_weights_are_refused_where_kept(generator):
    weight = torch.randn(2, 8, generator=generator)
    weight[0, 3] = float("nan")
    mask = ~weight.isnan()
    scale = torch.ones(8).bfloat16()
    with pytest.raises(ValueError, match="weight must be finite where it is kept, got NaN or infinity"):
        DualShiftWeight.pack(weight, column_scale=scale)
    assert bool(DualShiftWeight.pack(weight, mask, column_scale=scale).to_dense().isfinite().all())


def break_tensor(weight, name, change):
    tensors = {key: tensor.clone() for key, tensor in weight.tensors().items()}
    tensors[name] = change(tensors[name])
    return tensors


def put(value, *index):

    def change(tensor):
        tensor[index] = value
        return tensor

    return change


#: Of a weight [19, 23] with 3 bits and groups of 8.
BROKEN = [
    ("codes", lambda t: t.int(), "codes must have dtype uint8, got torch.int32"),
    ("codes", lambda t: t[:1], r"codes must have shape \[2, 1, 3, 64\], got \[1, 1, 3, 64\]"),
    ("codes", lambda t: t[0], "codes must have 4 dimensions, got 3"),
    ("codes", lambda t: t[..., :32].contiguous(), r"codes must have shape \[2, 1, 3, 64\], got \[2, 1, 3, 32\]"),
    ("codes", lambda t: t.mT.contiguous().mT, "codes must be contiguous, got strides"),
    ("codes", put(0b0000_0001, 1, 0, 0, 12), "codes must be 0 in the rows past 19, got 1 other codes"),
    ("codes", put(0b1000_0000, 1, 0, 2, 63), "codes must be 0 in the rows past 19, got 1 other codes"),
    ("codes", put(0b0100_0000, 0, 0, 2, 0), "codes must be 0 in the columns past 23, got 1 other codes"),
    ("codes", put(0b0000_0100, 0, 0, 1, 3), "codes must be 0 in the columns past 23, got 1 other codes"),
    ("scale", lambda t: t.half(), "scale must have dtype bfloat16, got torch.float16"),
    ("scale", lambda t: t[:1], r"scale must have shape \[2, 3, 16\], got \[1, 3, 16\]"),
    ("scale", put(float("inf"), 0, 1, 4), "scale must be finite and > 0, got inf"),
    ("scale", put(float("nan"), 0, 1, 4), "scale must be finite and > 0, got nan"),
    ("scale", put(0.0, 1, 0, 2), "scale must be finite and > 0, got 0.0"),
    ("scale", put(-1.0, 1, 0, 2), "scale must be finite and > 0, got -1.0"),
    ("scale", put(1.0, 1, 0, 3), "scale must be 0 in the rows past 19, got 1 other values"),
    ("scale", put(float("nan"), 1, 2, 15), "scale must be 0 in the rows past 19, got 1 other values"),
    ("zero", lambda t: t.to(torch.int8), "zero must have dtype uint8, got torch.int8"),
    ("zero", lambda t: t[:, :1].contiguous(), r"zero must have shape \[2, 3, 8\], got \[2, 1, 8\]"),
    ("zero", put(0x01, 1, 0, 3), "zero must be 0 in the rows past 19, got 1 other values"),
    ("zero", put(0x10, 1, 0, 0), "zero must be 0 in the rows past 19, got 1 other values"),
    ("zero", put(0x08, 0, 0, 0), "zero must be below 8, got 8"),
    ("zero", put(0xF0, 0, 0, 0), "zero must be below 8, got 15"),
    ("column_scale", lambda t: t.float(), "column_scale must have dtype bfloat16, got torch.float32"),
    ("column_scale", lambda t: t[None], "column_scale must have 1 dimensions, got 2"),
    ("column_scale", lambda t: t[:-1], r"column_scale must have shape \[23\], got \[22\]"),
    ("column_scale", put(0.0, 4), "column_scale must be finite and > 0, got 0.0"),
    ("column_scale", put(float("nan"), 4), "column_scale must be finite and > 0, got nan"),
    ("column_scale", lambda t: "no", "column_scale must be a tensor, got str"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN, ids=[m[:44] for _, _, m in BROKEN])
def test_broken_tensors_are_refused(generator, name, change, message):
    weight = pack(19, 23, generator, bits=3, group_size=8)
    with pytest.raises(FormatError, match=f"dual_shift: {message}"):
        DualShiftWeight.from_tensors(break_tensor(weight, name, change), weight.config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 7}, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ({"bits": "3"}, "bits must be one of 2, 3, 4, 5, 6, 8, got '3'"),
        ({"group_size": 0}, "group_size must be an integer >= 1, got 0"),
        ({"group_size": 8.0}, "group_size must be an integer >= 1, got 8.0"),
        ({"codebook": "nf5"}, "codebook must be one of uniform, nf4, nf3, got 'nf5'"),
        ({"codebook": "nf4"}, "bits must be 4 for codebook 'nf4', got 3"),
        ({"shape": [19, 24]}, r"column_scale must have shape \[24\], got \[23\]"),
        ({"shape": [33, 23]}, r"codes must have shape \[3, 1, 3, 64\], got \[2, 1, 3, 64\]"),
        ({"shape": [18, 23]}, "codes must be 0 in the rows past 18, got .* other codes"),
        ({"shape": [20, 23]}, r"scale must be finite and > 0, got 0\.0"),
        ({"shape": [19]}, r"shape must be two sizes \[n, k\], got \[19\]"),
        ({"shape": [-1, 23]}, r"shape must be two sizes \[n, k\], got \[-1, 23\]"),
        ({"surplus": 1}, "config must have bits, codebook, group_size, shape, got bits, .*surplus"),
    ],
)
def test_broken_config_is_refused(generator, changes, message):
    weight = pack(19, 23, generator, bits=3, group_size=8)
    with pytest.raises(FormatError, match=f"dual_shift: {message}"):
        DualShiftWeight.from_tensors(weight.tensors(), weight.config() | changes)


def test_missing_and_surplus_tensors_are_refused(generator):
    weight = pack(3, 23, generator)
    tensors = weight.tensors()
    with pytest.raises(FormatError, match="tensors must be codes, scale, zero, column_scale, got codes, column_scale"):
        DualShiftWeight.from_tensors({k: tensors[k] for k in ("codes", "column_scale")}, weight.config())
    with pytest.raises(FormatError, match=r"tensors must be .*, got bitmap, codes"):
        DualShiftWeight.from_tensors(tensors | {"bitmap": tensors["codes"]}, weight.config())


def test_zero_scale_is_allowed_for_normal_floats_only(generator):
    weight = pack(3, 23, generator, bits=3, codebook="nf3")
    tensors = break_tensor(weight, "scale", put(0.0, 0, 0, 0))
    assert not DualShiftWeight.from_tensors(tensors, weight.config()).to_dense()[0].any()
    with pytest.raises(FormatError, match=r"scale must be finite and >= 0, got -1\.0"):
        DualShiftWeight.from_tensors(break_tensor(weight, "scale", put(-1.0, 0, 0, 0)), weight.config())


def test_from_codes_refuses_codes_beyond_the_width():
    codes = torch.full((1, 4), 8, dtype=torch.uint8)
    zero, scale = torch.zeros(1, 1, dtype=torch.uint8), torch.ones(1, 1).bfloat16()
    with pytest.raises(FormatError, match="dual_shift: codes must be below 8, got 8"):
        DualShiftWeight.from_codes(codes, scale, zero, torch.ones(4).bfloat16(), bits=3, group_size=4)
    with pytest.raises(FormatError, match="dual_shift: zero must be below 8, got 9"):
        DualShiftWeight.from_codes(codes - 1, scale, zero + 9, torch.ones(4).bfloat16(), bits=3, group_size=4)


def test_is_frozen(generator):
    weight = pack(3, 23, generator)
    with pytest.raises(dataclasses.FrozenInstanceError):
        weight.bits = 3


def test_named_column_scale(generator):
    pytest.importorskip("prism_kernels.ops.sinkhorn")
    weight = torch.randn(8, 64, generator=generator) * torch.logspace(-1, 1, 64)
    plain = DualShiftWeight.pack(weight, column_scale="none")
    assert bool((plain.column_scale == 1).all())
    scaled = DualShiftWeight.pack(weight, column_scale="rms")
    assert torch.equal(scaled.column_scale, ops.column_scale(weight, method="rms", group_size=64))
