"""Three-tier pruning against a plain loop over blocks, its schedule files, and its maps."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from prism_kernels.formats import TieredWeight
from prism_llm import Recipe, compress_
from prism_llm.pipeline.layer import compress_weight
from prism_llm.pipeline.schedule import Schedule
from prism_llm.pipeline.tier_maps import FILE, TierMaps
from prism_llm.pruning.tiers import demote, expand_tiers, map_shape, shrink_tiers, tier_counts, tier_mask, tier_sparsity

SCHEDULE = [(0.9, 0.1, 0.0), (0.8, 0.1, 0.1), (0.65, 0.2, 0.15), (0.5, 0.3, 0.2), (0.35, 0.45, 0.2)]


def oracle_mask(weight, tiers, side, top_k):
    """Block by block, entry by entry, on a weight padded with zeros; the lower index loses ties."""
    n, k = weight.shape
    mask = torch.zeros(n, k, dtype=torch.bool)

    def value(row, column):
        return abs(float(weight[row, column])) if row < n and column < k else 0.0

    for block_row in range(tiers.shape[0]):
        for block_column in range(tiers.shape[1]):
            rows = range(block_row * side, (block_row + 1) * side)
            columns = range(block_column * side, (block_column + 1) * side)
            kept = set()
            for row in rows:
                for quad in range(columns.start, columns.stop, 4):
                    order = sorted(range(quad, quad + 4), key=lambda column, row=row: value(row, column))
                    kept |= {(row, column) for column in order[2:]}
            if tiers[block_row, block_column] == 0:
                kept = {(row, column) for row in rows for column in columns}
            elif tiers[block_row, block_column] == 2:
                order = sorted(sorted(kept), key=lambda at: value(*at))
                kept = {at for at in order[max(len(order) - top_k, 0) :] if value(*at) > 0} if top_k else set()
            for row, column in kept:
                if row < n and column < k:
                    mask[row, column] = True
    return mask


def oracle(weight, norms, tiers, shares, side, top_k):
    tiers, total = tiers.clone(), tiers.numel()
    dense, middle, _ = tier_counts(total, shares)

    def lowest(code, count, mask):
        scores = {}
        for at in range(total):
            row, column = divmod(at, tiers.shape[1])
            if tiers[row, column] == code:
                part = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
                block = (weight.double().abs() * norms.double())[part]
                scores[at] = float((block * mask[part]).sum())
        return sorted(scores, key=lambda at: (scores[at], at))[:count]

    everything = torch.ones_like(weight, dtype=torch.bool)
    for at in lowest(0, int((tiers == 0).sum()) - dense, everything):
        tiers[divmod(at, tiers.shape[1])] = 1
    mask = oracle_mask(weight, tiers, side, top_k)
    for at in lowest(1, int((tiers == 1).sum()) - middle, mask):
        tiers[divmod(at, tiers.shape[1])] = 2
    return tiers, oracle_mask(weight, tiers, side, top_k)


def random_weight(generator, n, k):
    """Few distinct values, so that ties abound and float32 sums are exact; with dead rows and columns."""
    weight = torch.randint(-4, 5, (n, k), generator=generator) / 8
    weight[int(torch.randint(n, (), generator=generator))] = 0
    weight[:, int(torch.randint(k, (), generator=generator))] = 0
    norms = 2.0 ** torch.randint(-2, 3, (k,), generator=generator)
    norms[int(torch.randint(k, (), generator=generator))] = 0
    return weight, norms


@pytest.mark.parametrize("case", range(40))
def test_demote_equals_the_plain_loop(case, monkeypatch):
    """Five iterations each, 200 steps in all; every other case goes a row of blocks at a time."""
    if case % 2:
        monkeypatch.setattr("prism_llm.pruning.tiers._STRIP_WEIGHTS", 1)
        monkeypatch.setattr("prism_kernels.formats.tiered._STRIP_WEIGHTS", 1)
    generator = torch.Generator().manual_seed(case)
    n, k = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((3, 40), (5, 50)))
    side = 32 if case % 5 == 4 else 16
    top_k = (10, 15, 0, 200)[case % 4]
    weight, norms = random_weight(generator, n, k)
    tiers = torch.zeros(map_shape(weight.shape, side), dtype=torch.uint8)
    for shares in SCHEDULE:
        expected = oracle(weight, norms, tiers, shares, side, top_k)
        tiers, mask = demote(weight, norms, tiers, shares, block_size=side, top_k=top_k)
        assert torch.equal(tiers, expected[0])
        assert torch.equal(mask, expected[1])
        packed = TieredWeight.pack(weight, expand_tiers(tiers, weight.shape, side), mask=mask)
        weight = weight * mask
        assert torch.equal(packed.to_dense(), weight)
        assert torch.equal(shrink_tiers(packed.tiers, side), tiers)
        weight = torch.where(mask & (weight != 0), weight + weight.sign() / 8, 0.0)  # training moves what is kept
        assert torch.equal(tier_mask(weight, tiers, block_size=side, top_k=top_k) & (weight != 0), weight != 0)


def test_counts_round_the_decimals():
    assert tier_counts(100, (0.9, 0.1, 0.0)) == (90, 10, 0)  # int(100 * (1.0 - 0.9)) is 9
    assert tier_counts(10, (0.35, 0.45, 0.2)) == (4, 4, 2)
    assert tier_counts(1, (0.5, 0.0, 0.5)) == (1, 0, 0)
    assert tier_counts(3, (0.5, 0.0, 0.5)) == (2, 0, 1)
    for blocks in range(200):
        counts = [tier_counts(blocks, shares) for shares in SCHEDULE]
        assert all(sum(c) == blocks and min(c) >= 0 for c in counts)
        assert all(a[0] >= b[0] and a[2] <= b[2] for a, b in pairwise(counts))


def test_blocks_never_go_up():
    weight, norms = random_weight(torch.Generator().manual_seed(0), 64, 64)
    tiers, _ = demote(weight, norms, torch.zeros(4, 4, dtype=torch.uint8), (0.5, 0.3, 0.2))
    with pytest.raises(ValueError, match=r"demote: tiers must have at least 13 dense .* got 8 and 3"):
        demote(weight, norms, tiers, (0.8, 0.1, 0.1))


def test_recipe_fields():
    recipe = Recipe.from_preset("three-tier")
    assert recipe.tiers == (0.35, 0.45, 0.2) and recipe.sparsity == pytest.approx(0.4172, abs=1e-4)
    assert Recipe(**recipe.to_dict()) == recipe
    changed = recipe.replace(tiers=(0.9, 0.1, 0.0))
    assert changed.sparsity == pytest.approx(0.05)
    assert recipe.replace(topk_per_block=15).sparsity == pytest.approx(tier_sparsity((0.35, 0.45, 0.2), 15, 16))
    assert Recipe.from_preset("wanda", sparsity=0.3).replace(topk_per_block=5).sparsity == 0.3
    for changes, message in (
        ({"tiers": (0.5, 0.5, 0.5)}, "tiers must be three shares that sum to 1"),
        ({"tier_block_size": 8}, "tier_block_size must be a positive multiple of 16, .* got 8"),
        ({"topk_per_block": 257}, "topk_per_block must be between 0 and 256, got 257"),
        ({"bits": 4}, "bits must be None with tiers, got 4"),
        ({"sparsity": 0.3}, "sparsity must be 0.417188, which tiers imply, got 0.3"),
        ({"score": "prism"}, "score must be wanda or magnitude with tiers, got prism"),
        ({"tiers": (0.5, 0.5)}, "tiers"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe.from_preset("three-tier", **changes)


def test_a_map_must_fit_its_weight():
    recipe = Recipe.from_preset("three-tier", score="magnitude")
    weight = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"tier map of up: must have shape \[2, 3\], got \[2, 2\]"):
        compress_weight("up", weight, recipe, tiers=torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="must be that of its weight, got 1476 weights that the map prunes"):
        compress_weight("up", weight, recipe, tiers=torch.full((2, 3), 2, dtype=torch.uint8), solver=None)
    with pytest.raises(ValueError, match="must hold tiers from 0 to 2, got 3"):
        compress_weight("up", weight, recipe, tiers=torch.full((2, 3), 3, dtype=torch.uint8))


def test_maps_must_name_the_linears():
    from tiny_models import tiny_model

    recipe = Recipe.from_preset("three-tier", score="magnitude")
    with pytest.raises(ValueError, match=r"tier maps must be those of the linears .* got none for \['model\.layers"):
        compress_(tiny_model("llama", layers=1), recipe, tiers={"elsewhere": torch.zeros(1, 1, dtype=torch.uint8)})


@pytest.mark.parametrize("side", [16, 32])
def test_one_shot_on_a_model(side):
    from tiny_models import tiny_model, tokens

    model = tiny_model("llama", layers=1)
    recipe = Recipe.from_preset("three-tier", tier_block_size=side, topk_per_block=10 * (side // 16) ** 2)
    report = compress_(model, recipe, tokens())
    assert {x.format for x in report.linears} == {"tiered"}
    assert {x.method for x in report.linears} == {"wanda > tiers"}
    for linear in report.linears:
        packed = model.get_submodule(linear.fqn).packed_weight()
        counts = [int((shrink_tiers(packed.tiers, side) == tier).sum()) for tier in range(3)]
        assert tuple(counts) == tier_counts(sum(counts), recipe.tiers)
        assert linear.sparsity == pytest.approx(float((packed.to_dense() == 0).float().mean()), abs=1e-3)


HEADER = "iteration,dense,mid_2_4,topk,dense_to_2_4,mid_2_4_to_topk,epochs\n"
ROWS = "1,0.90,0.10,0.00,0.10,0.00,2\n2,0.80,0.10,0.10,0.10,0.10,2\n\n3,0.65,0.20,0.15,0.15,0.05,1.5\n"


def load_schedule(folder: Path, text: str) -> Schedule:
    path = folder / "schedule.csv"
    path.write_text(text, "utf-8")
    return Schedule.load(path)


def test_schedule(tmp_path):
    schedule = load_schedule(tmp_path, HEADER + ROWS)
    assert [row.shares for row in schedule.rows] == [(0.9, 0.1, 0.0), (0.8, 0.1, 0.1), (0.65, 0.2, 0.15)]
    assert [row.epochs for row in schedule.rows] == [2, 2, 1.5] and schedule.row(3).iteration == 3
    assert load_schedule(tmp_path, "iteration,dense,mid_2_4,topk\n1, 1.0 ,0,0\n").rows[0].epochs == 0
    with pytest.raises(ValueError, match="iteration must be from 1 to 3, got 4"):
        schedule.row(4)
    with pytest.raises(FileNotFoundError, match="must be a CSV file, not found"):
        Schedule.load(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header and a row, got an empty file"),
        (HEADER, "at least one iteration, got a header alone"),
        ("iteration,dense,topk\n1,1,0\n", "must have the columns iteration, dense, mid_2_4, topk"),
        ("iteration,dense,mid_2_4,topk,top_k\n1,1,0,0,0\n", "got iteration, dense, mid_2_4, topk, top_k"),
        ("iteration,dense,mid_2_4,topk,topk\n1,1,0,0,0\n", "each once"),
        (HEADER + "1,0.9,0.2,0,0,0,1\n", r"line 2: dense \+ mid_2_4 \+ topk must be 1, got 1.1"),
        (HEADER + "1,1.1,-0.1,0,0,0,1\n", r"dense must be in \[0, 1\], got 1.1"),
        (HEADER + "2,0.9,0.1,0,0,0,1\n", r"iteration must be 1 \(they run 1, 2, 3, ...\), got 2"),
        (HEADER + "1,0.5,0.5,0,0,0,1\n2,0.6,0.4,0,0,0,1\n", "line 3: dense must not rise .* got 0.6 after 0.5"),
        (HEADER + "1,0.5,0.3,0.2,0,0,1\n2,0.5,0.4,0.1,0,0,1\n", "line 3: topk must not fall .* got 0.1 after 0.2"),
        (HEADER + "1,0.9,x,0,0,0,1\n", "mid_2_4 must be a decimal number, got 'x'"),
        (HEADER + "1,nan,0.1,0,0,0,1\n", "dense must be a decimal number, got 'nan'"),
        (HEADER + "1,9/10,0.1,0,0,0,1\n", "dense must be a decimal number, got '9/10'"),
        (HEADER + "1,0.9,0.1,0,0,0,-1\n", "epochs must be at least 0, got -1"),
        (HEADER + "1,0.9,0.1,0\n", "must have 7 values, got 4"),
    ],
)
def test_a_broken_schedule_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_schedule(tmp_path, text)


def test_maps_on_disk(tmp_path):
    maps = TierMaps(2, 16, 10, {"b": torch.tensor([[0, 1, 2]], dtype=torch.uint8), "a": torch.zeros(1, 1).byte()})
    (tmp_path / FILE).write_bytes(maps.to_bytes())
    assert maps.to_bytes() == maps.to_bytes()
    loaded = TierMaps.load(tmp_path)
    assert (loaded.iteration, loaded.block_size, loaded.top_k) == (2, 16, 10)
    assert all(torch.equal(loaded.maps[name], maps.maps[name]) for name in maps.maps)
    assert loaded.shares() == {"dense": 0.5, "2:4": 0.25, "top-k": 0.25}
    fits = {"a": {"format": "tiered", "shape": [9, 16]}, "b": {"format": "tiered", "shape": [16, 48]}}
    loaded.require_fit({**fits, "c": {"format": "bitmap", "shape": [9, 9]}})
    with pytest.raises(ValueError, match="c must be a tiered linear with a map, got no map of it: a foreign map"):
        loaded.require_fit({**fits, "c": {"format": "tiered", "shape": [9, 9]}})
    with pytest.raises(ValueError, match="b must be a tiered linear with a map, got a map of it"):
        loaded.require_fit({"a": fits["a"]})
    with pytest.raises(ValueError, match=r"b must have a map of shape \[1, 4\], got torch.uint8 \[1, 3\]"):
        loaded.require_fit({**fits, "b": {"format": "tiered", "shape": [16, 49]}})
    with pytest.raises(FileNotFoundError, match=r"tier_maps\.safetensors must exist"):
        TierMaps.load(tmp_path / "elsewhere")
    for broken in (b"", b"not safetensors", TierMaps(1, 16, 10, {}).to_bytes().replace(b"block_size", b"blockxsize")):
        (tmp_path / FILE).write_bytes(broken)
        with pytest.raises(ValueError, match="must be a file of tier maps"):
            TierMaps.load(tmp_path)
