"""PermutedWeight: columns in another order, decoded in the weight's own; bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.formats import BitmapWeight, FormatError, LowRankWeight, PermutedWeight, Sparse24Weight

BASES = {
    "bitmap": {},
    "sparse24": {},
    "bitmap_dual_shift": {"bits": 4, "group_size": 16},
    "sparse24_dual_shift": {"bits": 4, "group_size": 16},
}


def problem(generator, n=20, k=30):
    weight, index = torch.randn(n, k, generator=generator), torch.randperm(k, generator=generator)
    mask = torch.zeros(n, k, dtype=torch.bool)
    mask[:, index] = ops.nm_mask(weight[:, index].abs().contiguous(), 2, 4)
    return weight, mask, index


@pytest.mark.parametrize("base", BASES)
def test_decodes_in_the_order_of_the_weight(generator, base):
    for dtype in FLOATS:
        weight, mask, index = problem(generator)
        packed = PermutedWeight.pack(weight.to(dtype), mask, index=index, base=base, **BASES[base])
        packed.validate()
        assert packed.shape == (20, 30)
        assert packed.nbytes == 4 * 30 + packed.base.nbytes == sum(t.nbytes for t in packed.tensors().values())
        dense = packed.to_dense(torch.float32)
        assert bool((dense[~mask] == 0).all())
        assert torch.equal(dense[:, index], packed.base.to_dense(torch.float32))
        if "dual" not in base:
            assert torch.equal(dense, torch.where(mask, weight.to(dtype).float(), 0.0))
        again = PermutedWeight.from_tensors(packed.tensors(), packed.config())
        assert torch.equal(again.to_dense(torch.float32), dense) and again.config() == packed.config()


def test_sizes_at_the_edge(generator):
    for n, k in ((1, 1), (3, 0), (0, 3), (17, 5)):
        packed = PermutedWeight.pack(torch.randn(n, k), index=torch.arange(k).flip(0))
        packed.validate()
        assert packed.to_dense().shape == (n, k)


def test_low_rank_corrects_a_permuted_base(generator):
    weight, mask, index = problem(generator)
    base = PermutedWeight.pack(weight, mask, index=index, base="sparse24")
    packed = LowRankWeight.pack(weight, rank=8, base=base)
    assert (weight - packed.to_dense()).norm() < (weight - base.to_dense()).norm()
    again = LowRankWeight.from_tensors(packed.tensors(), packed.config())
    assert torch.equal(again.to_dense(), packed.to_dense())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t, c: t.pop("index"), r"tensors must be index and those of the base, got \['base.bitmap'"),
        (lambda t, c: t.update(index=t["index"].long()), "index must have dtype int32, got torch.int64"),
        (lambda t, c: t.update(index=t["index"][1:]), r"index must have shape \[6\], got \[5\]"),
        (lambda t, c: t["index"].__setitem__(0, 6), "index must hold each of 0 to 5 once, got another list"),
        (lambda t, c: t["index"].__setitem__(0, -1), "index must hold each of 0 to 5 once"),
        (lambda t, c: t["index"].fill_(2), "index must hold each of 0 to 5 once"),
        (lambda t, c: c.update(shape=[5, 6]), r"shape must be \[4, 6\], got \[5, 6\]"),
        (lambda t, c: c.pop("base"), "base must name a format of .*, got None"),
        (lambda t, c: c.update(base={"format": "permuted"}), "base must name a format of .*, got"),
        (lambda t, c: c.update(bits=4), "permuted: config must"),
        (lambda t, c: t.pop("base.values"), "bitmap: tensors must be"),
    ],
)
def test_bad_tensors_are_refused(generator, spoil, message):
    packed = PermutedWeight.pack(torch.randn(4, 6, generator=generator), index=torch.arange(6).flip(0))
    tensors, config = copy.deepcopy(packed.tensors()), copy.deepcopy(packed.config())
    spoil(tensors, config)
    with pytest.raises(FormatError, match=message):
        PermutedWeight.from_tensors(tensors, config)


def test_pack_names_argument_rule_and_value():
    weight = torch.ones(4, 6)
    for index in (torch.arange(5), torch.zeros(6, dtype=torch.int64), torch.arange(6.0)):
        with pytest.raises(ValueError, match=r"PermutedWeight\.pack: index must be a permutation of the columns"):
            PermutedWeight.pack(weight, index=index)
    with pytest.raises(ValueError, match=r"base must name a format of bitmap_dual_shift, bitmap, .*, got 'csr'"):
        PermutedWeight.pack(weight, index=torch.arange(6), base="csr")


def test_every_sparse_format_is_a_base():
    from prism_kernels.formats.permuted import BASES as KNOWN

    assert set(BASES) == set(KNOWN) and {BitmapWeight, Sparse24Weight} <= set(KNOWN.values())
