"""TieredWeight: lossless, selection equals brute force, the byte formula, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, masks
from prism_kernels.formats import FormatError, TieredWeight
from prism_kernels.reference.tiered import from_tiles, num_tiles, pack_bits, to_tiles, unpack_bits
from tiered_problems import brute_force, tier_map, tier_maps

SHAPES = [(1, 1), (2, 7), (16, 16), (17, 33), (31, 64), (2, 509), (0, 16), (3, 0)]


def test_the_order_of_bits():
    tiles = to_tiles(torch.arange(256.0).view(16, 16))[0, 0]
    assert tiles[:4].tolist() == [0.0, 1.0, 16.0, 17.0]
    assert tiles[32:34].tolist() == [2.0, 3.0]
    dense = torch.randn(20, 37)
    assert torch.equal(from_tiles(to_tiles(dense), 20, 37), dense)
    bits = torch.zeros(256, dtype=torch.bool)
    bits[9] = True
    assert pack_bits(bits).tolist() == [0, 2] + [0] * 30
    assert torch.equal(unpack_bits(pack_bits(bits)), bits)


@pytest.fixture(params=[1, None], ids=["by panels", "at once"])
def strips(request, monkeypatch):
    """Packing goes some panels at a time."""
    if request.param is not None:
        monkeypatch.setattr("prism_kernels.formats.tiered._STRIP_WEIGHTS", request.param)


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("top_k", [0, 1, 10, 256])
def test_selection_equals_brute_force(generator, top_k):
    for n, k in SHAPES[:6]:
        for dtype in FLOATS:
            weight = torch.randint(-6, 7, (n, k), generator=generator).to(dtype)  # few values: many ties
            weight = torch.where(weight == 0, 0.5, weight)
            for tiers in tier_maps(n, k, generator):
                packed = TieredWeight.pack(weight, tiers, top_k=top_k)
                packed.validate()
                expected = torch.where(brute_force(weight, tiers, top_k), weight, 0)
                assert torch.equal(packed.to_dense(), expected), (n, k, dtype)


@pytest.mark.usefixtures("strips")
def test_round_trip_and_bytes(generator):
    for n, k in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(n, k, generator=generator).to(dtype)
            for name, mask in masks(n, k, generator):
                packed = TieredWeight.pack(weight, mask=mask)
                packed.validate()
                assert packed.shape == (n, k)
                assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0)), (n, k, dtype, name)
                again = TieredWeight.from_tensors(packed.tensors(), packed.config())
                assert torch.equal(again.to_dense(), packed.to_dense())
                masked = int(((packed.tiers == 1) | (packed.tiers == 2)).sum())
                size = packed.tiers.numel() + 32 * masked + packed.values.numel() * weight.element_size()
                assert packed.nbytes == size


def test_a_mask_is_kept_as_it_is(generator):
    n, k = 40, 70
    weight = torch.randn(n, k, generator=generator)
    weight[3, 5] = 0.0  # an explicit zero
    tiers = torch.full((num_tiles(n), num_tiles(k)), 2)
    mask = torch.rand(n, k, generator=generator) < 0.1
    mask[3, 5] = True
    packed = TieredWeight.pack(weight, tiers, mask=mask)
    assert packed.values.numel() == int(mask.sum())
    assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0))


def test_tiers_follow_from_the_mask():
    weight = torch.ones(16, 64)
    weight[:, 16:32] = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(4)
    weight[1:, 32:48] = 0
    weight[:, 48:] = 0
    packed = TieredWeight.pack(weight)
    assert packed.tiers.tolist() == [[0, 1, 2, 3]]
    assert packed.values.numel() == 256 + 128 + 16
    assert torch.equal(packed.to_dense(), weight)


def test_size_of_the_default_mixture(generator):
    tiers = torch.tensor([0] * 7 + [1] * 9 + [2] * 4).repeat(5, 1)
    packed = TieredWeight.pack(torch.randn(80, 320, generator=generator).bfloat16(), tiers)
    assert packed.bits_per_weight == pytest.approx(0.35 * 16 + 0.45 * 9 + 0.2 * (32 + 20) / 32 + 8 / 256)


def stray_bit(tensors):
    tensors["masks"][1] = 0
    tensors["masks"][1, 31] = 128  # row 15, column 15 of the tile: past 20 rows
    kept = int(unpack_bits(tensors["masks"]).sum()) + 256 * int((tensors["tiers"] == 0).sum())
    tensors["values"] = torch.ones(kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("values"), r"tensors must be tiers, masks, values, got \['masks', 'tiers'\]"),
        (lambda t: t.update(tiers=None), "tiers must be a tensor, got NoneType"),
        (lambda t: t.update(tiers=t["tiers"].int()), "tiers must have dtype uint8, got torch.int32"),
        (lambda t: t.update(tiers=t["tiers"][:1].clone()), r"tiers must have shape \[2, 2\], got \[1, 2\]"),
        (lambda t: t.update(tiers=t["tiers"] + 2), "tiers must be at most 3, got 4"),
        (lambda t: t.update(masks=t["masks"][:1].clone()), r"masks must have shape \[2, 32\], got \[1, 32\]"),
        (lambda t: t.update(values=t["values"].double()), "values must have dtype float32, float16 or bfloat16, got"),
        (lambda t: t.update(values=t["values"][1:].clone()), r"values must have shape \[\d+\], got \[\d+\]"),
        (lambda t: t.update(values=t["values"].repeat(2)[::2]), "values must be contiguous"),
        (stray_bit, "masks must be 0 past 20 rows and 30 columns in tiles of tier 2, got 1 bits"),
    ],
)
def test_bad_tensors_are_refused(generator, spoil, message):
    packed = TieredWeight.pack(torch.randn(20, 30, generator=generator), torch.tensor([[0, 1], [2, 0]]))
    tensors = copy.deepcopy(packed.tensors())
    spoil(tensors)
    with pytest.raises(FormatError, match=f"tiered: {message}"):
        TieredWeight.from_tensors(tensors, packed.config())


def test_a_quad_of_three_is_not_sparse24(generator):
    packed = TieredWeight.pack(torch.randn(16, 16, generator=generator), torch.tensor([[1]]))
    tensors = copy.deepcopy(packed.tensors())
    moved = unpack_bits(tensors["masks"])[0]
    first, free = moved[:32].nonzero()[0], (~moved[64:96]).nonzero()[0] + 64
    moved[first], moved[free] = False, True  # still 128 bits
    tensors["masks"] = pack_bits(moved)[None]
    with pytest.raises(FormatError, match="keep 2 of every 4 columns in tiles of tier 1, got 2 other quads"):
        TieredWeight.from_tensors(tensors, packed.config())


@pytest.mark.parametrize("config", [{}, {"shape": [4]}, {"shape": [33, 30]}, {"shape": [20, 30], "bits": 4}])
def test_bad_configs_are_refused(config):
    with pytest.raises(FormatError, match=r"tiered: (config|shape|tiers) must"):
        TieredWeight.from_tensors(TieredWeight.pack(torch.ones(20, 30)).tensors(), config)


W = torch.ones(16, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((W, torch.zeros(2, 2)), r"tiers must have shape \[1, 2\], got \[2, 2\]"),
        ((W, torch.zeros(1, 2)), "tiers must have an integer dtype, got torch.float32"),
        ((W, torch.tensor([[0, 4]])), r"tiers must be between 0 and 3, got \[0, 4\]"),
        ((W, None, torch.ones(16, 31, dtype=torch.bool)), r"mask must have shape \[16, 32\], got \[16, 31\]"),
        ((W, None, torch.ones(16, 32)), "mask must have dtype bool, got torch.float32"),
        ((W, torch.tensor([[1, 0]]), W.bool()), "mask must keep at most 2 of every 4 columns in .*, got 4"),
        ((W, None, None, 257), "top_k must be between 0 and 256, got 257"),
        ((W.double(),), "weight must have dtype float32, float16 or bfloat16, got torch.float64"),
        ((torch.ones(4),), "weight must have 2 dimensions, got 1"),
    ],
)
def test_pack_names_argument_rule_and_value(arguments, message):
    weight, tiers, mask, top_k = (*arguments, *(None, None, 10)[len(arguments) - 1 :])
    with pytest.raises(ValueError, match=f"TieredWeight.pack: {message}"):
        TieredWeight.pack(weight, tiers, mask=mask, top_k=top_k)


def test_map_survives_any_dtype(generator):
    weight = torch.randn(30, 40, generator=generator)
    tiers = tier_map(30, 40, generator)
    expected = TieredWeight.pack(weight, tiers).to_dense()
    assert torch.equal(TieredWeight.pack(weight, tiers.long()).to_dense(), expected)
