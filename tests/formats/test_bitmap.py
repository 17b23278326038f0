"""BitmapWeight: lossless, pruned is exactly 0, the byte formula, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, SHAPES, masks
from prism_kernels.formats import BitmapWeight, FormatError


def test_round_trip_and_bytes(generator):
    for n, k in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(n, k, generator=generator).to(dtype)
            for name, mask in masks(n, k, generator):
                packed = BitmapWeight.pack(weight, mask)
                packed.validate()
                assert packed.shape == (n, k)
                dense = packed.to_dense()
                assert dense.dtype == dtype
                assert torch.equal(dense, torch.where(mask, weight, 0)), (n, k, dtype, name)
                assert packed.nbytes == -(-n // 16) * -(-k // 2) * 4 + int(mask.sum()) * weight.element_size()
                again = BitmapWeight.from_tensors(packed.tensors(), packed.config())
                assert torch.equal(again.to_dense(), dense)


def test_default_mask_is_the_non_zeros(generator):
    weight = torch.randn(8, 100, generator=generator)
    weight[weight.abs() < 0.5] = 0
    packed = BitmapWeight.pack(weight)
    assert packed.values.numel() == weight.count_nonzero()
    assert torch.equal(packed.to_dense(torch.bfloat16), weight.bfloat16())


def test_size_at_half_sparsity(generator):
    weight = torch.randn(256, 4096, generator=generator).bfloat16()
    mask = torch.zeros(256, 4096, dtype=torch.bool)
    mask[:, ::2] = True
    assert BitmapWeight.pack(weight, mask).bits_per_weight == 9.0


def set_bit(panel, pair, byte, value):
    def spoil(tensors):
        tensors["bitmap"][panel, pair, byte] |= value

    return spoil


def drop_value(tensors):
    tensors["values"] = tensors["values"][:-1].clone()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("values"), r"tensors must be bitmap, values, got \['bitmap'\]"),
        (lambda t: t.update(bitmap=t["bitmap"].int()), "bitmap must have dtype uint8, got torch.int32"),
        (lambda t: t.update(bitmap=t["bitmap"][:, :-1]), r"bitmap must have shape \[2, 50, 4\], got \[2, 49, 4\]"),
        (lambda t: t.update(bitmap=None), "bitmap must be a tensor, got NoneType"),
        (lambda t: t.update(bitmap=t["bitmap"].mT.contiguous().mT), "bitmap must be contiguous"),
        # Row 4 of the last panel, which has 4; column 99 of 99.
        (set_bit(1, 7, 1, 0b1), "bitmap must have 0 in the bits past row 20 and column 99, got 1 bytes with others"),
        (set_bit(0, 49, 3, 0b10), "bitmap must have 0 in the bits past row 20 and column 99, got 1 bytes with others"),
        (lambda t: t.update(values=t["values"].double()), "values must have dtype float32, float16 or bfloat16, got"),
        (lambda t: t.update(values=t["values"][:, None].clone()), r"values must have shape \[\d+\], got \[\d+, 1\]"),
        (lambda t: t.update(values=3), "values must be a tensor, got int"),
        (drop_value, r"values must have shape \[\d+\], got \[\d+\]"),
    ],
)
def test_bad_tensors_are_refused(generator, spoil, message):
    packed = BitmapWeight.pack(torch.randn(20, 99, generator=generator), torch.rand(20, 99, generator=generator) < 0.5)
    tensors = copy.deepcopy(packed.tensors())
    spoil(tensors)
    with pytest.raises(FormatError, match=f"bitmap: {message}"):
        BitmapWeight.from_tensors(tensors, packed.config())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"config must have shape, got \[\]"),
        ({"shape": [4]}, r"shape must be two sizes \[n, k\], got \[4\]"),
        ({"shape": [4, -1]}, r"shape must be two sizes \[n, k\], got \[4, -1\]"),
        ({"shape": [4, 64]}, r"bitmap must have shape \[1, 32, 4\], got \[1, 50, 4\]"),
        ({"shape": [17, 100]}, r"bitmap must have shape \[2, 50, 4\], got \[1, 50, 4\]"),
        ({"shape": [3, 100]}, "bitmap must have 0 in the bits past row 3 and column 100, got 50 bytes with others"),
        ({"shape": "4,100"}, "shape must be two sizes"),
    ],
)
def test_bad_configs_are_refused(config, message):
    packed = BitmapWeight.pack(torch.ones(4, 100))
    with pytest.raises(FormatError, match=message):
        BitmapWeight.from_tensors(packed.tensors(), config)
