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
    assert packed.codes.tolist() == [[0b10_11_01_00]]
    assert (packed.scale.tolist(), packed.zero.tolist()) == ([[1.0]], [[1]])
    assert torch.equal(packed.to_dense(), weight)
    assert packed.to_dense(torch.bfloat16).dtype == torch.bfloat16
    assert packed.config() == {"shape": [1, 4], "bits": 2, "group_size": 4, "codebook": "uniform"}


def test_round_trip_and_byte_count(generator):
    for bits, codebook in GRIDS:
        for n, k, group in ((3, 7, 64), (5, 130, 32), (4, 64, 64), (0, 8, 4), (2, 65, 5)):
            packed = pack(n, k, generator, bits=bits, codebook=codebook, group_size=group)
            again = DualShiftWeight.from_tensors(packed.tensors(), packed.config())
            assert again.config() == packed.config() and again.shape == (n, k)
            assert torch.equal(again.to_dense(), packed.to_dense())
            groups = -(-k // group)
            zero_bytes = -(-groups * bits // 8) if codebook == "uniform" else 0
            assert packed.nbytes == n * (-(-k * bits // 8) + 2 * groups + zero_bytes) + 2 * k
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


BROKEN = [
    ("codes", lambda t: t.int(), "codes must have dtype uint8, got torch.int32"),
    ("codes", lambda t: t[:, :-1].contiguous(), r"codes must have shape \[3, 9\], got \[3, 8\]"),
    ("codes", lambda t: t[0], "codes must have 2 dimensions, got 1"),
    ("codes", lambda t: t.T.contiguous().T, "codes must be contiguous, got strides"),
    ("codes", put(0b0100_0000, 1, -1), "codes must have 0 in its unused bits, got tail 2"),
    ("scale", lambda t: t.half(), "scale must have dtype bfloat16, got torch.float16"),
    ("scale", lambda t: t[:2], r"scale must have shape \[3, 3\], got \[2, 3\]"),
    ("scale", put(float("inf"), 0, 1), "scale must be finite and > 0, got inf"),
    ("scale", put(float("nan"), 0, 1), "scale must be finite and > 0, got nan"),
    ("scale", put(0.0, 2, 0), "scale must be finite and > 0, got 0.0"),
    ("scale", put(-1.0, 2, 0), "scale must be finite and > 0, got -1.0"),
    ("zero", lambda t: t.to(torch.int8), "zero must have dtype uint8, got torch.int8"),
    ("zero", lambda t: t[:, :1].contiguous(), r"zero must have shape \[3, 2\], got \[3, 1\]"),
    ("zero", put(0b0000_0010, 0, -1), "zero must have 0 in its unused bits, got tail 1"),
    ("column_scale", lambda t: t.float(), "column_scale must have dtype bfloat16, got torch.float32"),
    ("column_scale", lambda t: t[None], "column_scale must have 1 dimensions, got 2"),
    ("column_scale", put(0.0, 4), "column_scale must be finite and > 0, got 0.0"),
    ("column_scale", put(float("nan"), 4), "column_scale must be finite and > 0, got nan"),
    ("column_scale", lambda t: "no", "column_scale must be a tensor, got str"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN, ids=[m[:44] for _, _, m in BROKEN])
def test_broken_tensors_are_refused(generator, name, change, message):
    weight = pack(3, 23, generator, bits=3, group_size=8)
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
        ({"shape": [3, 24]}, r"shape must be \[3, 23\] by the tensors, got \[3, 24\]"),
        ({"surplus": 1}, "config must have bits, codebook, group_size, shape, got bits, .*surplus"),
    ],
)
def test_broken_config_is_refused(generator, changes, message):
    weight = pack(3, 23, generator, bits=3, group_size=8)
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
    tensors = break_tensor(weight, "scale", put(0.0, 0, 0))
    assert bool((DualShiftWeight.from_tensors(tensors, weight.config()).to_dense()[0] == 0).all())
    with pytest.raises(FormatError, match=r"scale must be finite and >= 0, got -1\.0"):
        DualShiftWeight.from_tensors(break_tensor(weight, "scale", put(-1.0, 0, 0)), weight.config())


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
