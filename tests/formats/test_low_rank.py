"""LowRankWeight: the best approximation of its rank, alone or of what a base leaves; bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels.formats import BitmapWeight, CsrWeight, DualShiftWeight, FormatError, LowRankWeight, TieredWeight


def test_error_is_that_of_the_singular_values_left_out(generator):
    weight = torch.randn(20, 30, generator=generator)
    singular = torch.linalg.svdvals(weight.double())
    for rank in (0, 1, 7, 20):
        packed = LowRankWeight.pack(weight, rank=rank)
        packed.validate()
        assert packed.shape == (20, 30)
        assert packed.rank == rank
        error = (weight - packed.to_dense()).double().norm()
        assert float(error) == pytest.approx(float(singular[rank:].norm()), abs=1e-4)


def test_bytes_and_dtypes(generator):
    for dtype in FLOATS:
        packed = LowRankWeight.pack(torch.randn(20, 30, generator=generator).to(dtype), rank=3)
        assert packed.a.dtype == packed.b.dtype == dtype
        assert packed.nbytes == 3 * (20 + 30) * packed.a.element_size()
        again = LowRankWeight.from_tensors(packed.tensors(), packed.config())
        assert torch.equal(again.to_dense(torch.float32), packed.to_dense(torch.float32))


@pytest.mark.parametrize("kind", [BitmapWeight, CsrWeight, DualShiftWeight, TieredWeight])
def test_corrects_a_base(generator, kind):
    weight = torch.randn(33, 70, generator=generator)
    mask = torch.rand(33, 70, generator=generator) < 0.5
    base = kind.pack(weight, mask=mask)
    packed = LowRankWeight.pack(weight, rank=8, base=base)
    assert packed.nbytes == base.nbytes + 8 * (33 + 70) * 4
    left, corrected = (weight - base.to_dense()).norm(), (weight - packed.to_dense()).norm()
    assert corrected < left
    again = LowRankWeight.from_tensors(packed.tensors(), packed.config())
    assert torch.equal(again.to_dense(), packed.to_dense())
    assert again.config() == packed.config()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t, c: t.pop("a"), r"tensors must be a, b and those of the base, got \['b', 'base.bitmap'"),
        (lambda t, c: t.update(b=t["b"].double()), "b must have dtype float32, float16 or bfloat16, got torch.float64"),
        (lambda t, c: t.update(b=t["b"][:, 1:].clone()), r"a must have shape \[1, 6\], got \[2, 6\]"),
        (lambda t, c: t.update(a=t["a"].T.contiguous().T), "a must be contiguous"),
        (lambda t, c: t.update(a=t["a"][0]), "a must have 2 dimensions, got 1"),
        (lambda t, c: c.update(rank=3), "rank must be 2, got 3"),
        (lambda t, c: c.update(shape=[5, 6]), r"shape must be \[4, 6\], got \[5, 6\]"),
        (lambda t, c: c.pop("base"), "tensors must have none of a base that the config lacks"),
        (lambda t, c: c.update(base={"format": "low_rank"}), "base must name a format of .*, got"),
        (lambda t, c: c["base"].update(shape=[20, 6]), "bitmap: bitmap must have shape"),
        (lambda t, c: t.pop("base.values"), "bitmap: tensors must be"),
    ],
)
def test_bad_tensors_are_refused(generator, spoil, message):
    weight = torch.randn(4, 6, generator=generator)
    packed = LowRankWeight.pack(weight, rank=2, base=BitmapWeight.pack(weight, weight > 0))
    tensors, config = copy.deepcopy(packed.tensors()), copy.deepcopy(packed.config())
    spoil(tensors, config)
    with pytest.raises(FormatError, match=message):
        LowRankWeight.from_tensors(tensors, config)


W = torch.ones(4, 6)


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (torch.ones(4), {"rank": 1}, "weight must have 2 dimensions, got 1"),
        (W.double(), {"rank": 1}, "weight must have dtype float32, float16 or bfloat16, got torch.float64"),
        (W, {"rank": 5}, "rank must be between 0 and 4, got 5"),
        (W, {"rank": 1, "mask": W.bool()}, "mask must be None"),
        (W, {"rank": 1, "base": BitmapWeight.pack(W.T.contiguous())}, r"base must have shape \[4, 6\], got \[6, 4\]"),
        (W, {"rank": 1, "base": LowRankWeight(W, torch.ones(4, 4))}, "base must be of a format of .*, got low_rank"),
    ],
)
def test_pack_names_argument_rule_and_value(weight, options, message):
    with pytest.raises(ValueError, match=f"LowRankWeight.pack: {message}"):
        LowRankWeight.pack(weight, **options)
