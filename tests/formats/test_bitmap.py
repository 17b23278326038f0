"""BitmapWeight: lossless, pruned is exactly 0, the byte formula, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, masks
from prism_kernels.formats import BitmapWeight, FormatError

SHAPES = [(1, 1), (2, 7), (3, 63), (5, 65), (7, 128), (2, 1009), (0, 16), (3, 0)]


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
                assert packed.nbytes == n * 8 * -(-k // 64) + int(mask.sum()) * weight.element_size()
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


def set_tail_bit(tensors):
    tensors["bitmap"][1, 12] |= 0x40  # column 102 of 100


def drop_value(tensors):
    tensors["values"] = tensors["values"][:-1].clone()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("values"), r"tensors must be bitmap, values, got \['bitmap'\]"),
        (lambda t: t.update(bitmap=t["bitmap"].int()), "bitmap must have dtype uint8, got torch.int32"),
        (lambda t: t.update(bitmap=t["bitmap"][:, :-1]), r"bitmap must have shape \[4, 16\], got \[4, 15\]"),
        (lambda t: t.update(bitmap=None), "bitmap must be a tensor, got NoneType"),
        (lambda t: t.update(bitmap=t["bitmap"].T.contiguous().T), "bitmap must be contiguous"),
        (set_tail_bit, "bitmap must have 0 in the bits past column 100, got 1 bytes"),
        (lambda t: t.update(values=t["values"].double()), "values must have dtype float32, float16 or bfloat16, got"),
        (lambda t: t.update(values=t["values"][:, None].clone()), r"values must have shape \[\d+\], got \[\d+, 1\]"),
        (lambda t: t.update(values=3), "values must be a tensor, got int"),
        (drop_value, r"values must have shape \[\d+\], got \[\d+\]"),
    ],
)
def test_bad_tensors_are_refused(generator, spoil, message):
    packed = BitmapWeight.pack(torch.randn(4, 100, generator=generator), torch.rand(4, 100, generator=generator) < 0.5)
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
        ({"shape": [4, 64]}, r"bitmap must have shape \[4, 8\], got \[4, 16\]"),
        ({"shape": "4,100"}, "shape must be two sizes"),
    ],
)
def test_bad_configs_are_refused(config, message):
    packed = BitmapWeight.pack(torch.ones(4, 100))
    with pytest.raises(FormatError, match=message):
        BitmapWeight.from_tensors(packed.tensors(), config)
