"""Sparsity that is not the same for all: one threshold for a model, OWL, and counts that add up exactly."""

import math
import random

import pytest
import torch
from tiny_models import tiny_model, tokens

from prism_kernels.nn import PackedLinear
from prism_llm import Recipe, compress, compress_
from prism_llm.pipeline.promise import promised, require_pruned_as_named, rounding_note
from prism_llm.pipeline.selection import choose_mask
from prism_llm.pruning import (
    GlobalThreshold,
    Pattern,
    count_outliers,
    exact_counts,
    owl_sparsities,
    select_mask,
    share_of,
)
from prism_llm.pruning.compensation import obs_sweep
from prism_llm.pruning.ratios import OutlierCount
from prism_llm.quantization import pack_pruned


def found_counts(weights, count):
    threshold = GlobalThreshold(count)
    for _ in threshold.passes:
        for weight in weights:
            threshold.add(weight)
        threshold.end_pass()
    return [threshold.pruned(weight) for weight in weights]


def test_one_threshold_over_matrices_equals_a_sort_of_all():
    """200 sets of matrices with ties, zeros, dead lines and several dtypes."""
    for case in range(200):
        draw, generator = random.Random(case), torch.Generator().manual_seed(case)
        weights = []
        for _ in range(draw.randint(1, 4)):
            weight = torch.randn(draw.randint(1, 7), draw.randint(1, 9), generator=generator)
            if draw.random() < 0.6:
                weight = (weight * 2).round() / 2
            weight[draw.randrange(weight.shape[0])] *= draw.choice([0.0, 1.0, 1e-30])
            weight[:, draw.randrange(weight.shape[1])] *= draw.choice([0.0, 1.0])
            weights.append(weight.to(draw.choice([torch.float32, torch.bfloat16, torch.float16])))
        everything = [
            (abs(v), m, i) for m, w in enumerate(weights) for i, v in enumerate(w.double().flatten().tolist())
        ]
        count = draw.choice([0, len(everything), draw.randint(0, len(everything))])
        lost = {(m, i) for _, m, i in sorted(everything)[:count]}
        counts = found_counts(weights, count)
        for m, (weight, pruned) in enumerate(zip(weights, counts, strict=True)):
            mask = select_mask(weight.float().abs(), Pattern(), 0.0, "matrix", pruned).flatten().tolist()
            assert [(m, i) not in lost for i in range(len(mask))] == mask
    with pytest.raises(ValueError, match="count must be at most 4, got 5"):
        found_counts([torch.ones(2, 2)], 5)
    with pytest.raises(RuntimeError, match="both passes"):
        GlobalThreshold(0).pruned(torch.ones(1, 1))


def owl_oracle(blocks, sparsity, factor, spread):
    """The source's arithmetic on lists of scores per block, all blocks of one size."""
    ratios = []
    for scores in blocks:
        mean = math.fsum(scores) / len(scores)
        ratios.append(sum(score > mean * factor for score in scores) / len(scores) * 100)
    low, high = min(ratios), max(ratios)
    scaled = [(r - low) * (1 / (high - low) * spread * 2) if high > low else 0.0 for r in ratios]
    mean = math.fsum(scaled) / len(scaled)
    return [1 - (s - mean + (1 - sparsity)) for s in scaled]


def test_owl_equals_its_source():
    for case in range(200):
        draw, generator = random.Random(case), torch.Generator().manual_seed(case)
        shapes = [(draw.randint(1, 6), draw.randint(1, 12)) for _ in range(draw.randint(1, 3))]
        factor, spread, sparsity = draw.choice([2.0, 5.0]), draw.choice([0.0, 0.05, 0.08]), draw.choice([0.3, 0.5, 0.7])
        layers, scores = [], []
        for _ in range(draw.randint(1, 5)):
            block = []
            for shape in shapes:
                weight = torch.randn(shape, generator=generator).pow(3)
                weight[draw.randrange(shape[0])] *= draw.choice([0.0, 1.0])
                block.append((weight, torch.rand(shape[1], generator=generator).round(decimals=1)))
            layers.append(block)
            scores.append([v for w, x in block for v in (w.abs() * x).double().flatten().tolist()])
        ours = owl_sparsities([count_outliers(block, factor) for block in layers], sparsity, spread)
        assert ours == pytest.approx(owl_oracle(scores, sparsity, factor, spread), abs=1e-9)
    with pytest.raises(ValueError, match="a smaller lambda does"):
        owl_sparsities([OutlierCount(10, 0), OutlierCount(10, 0), OutlierCount(10, 9)], 0.95, 0.2)


def test_counts_sum_exactly():
    shares = {f"w{i}": (97 + i, 0.5 + 0.01 * (i - 4)) for i in range(9)}
    total = int(sum(weights * share for weights, share in shares.values()))
    counts = exact_counts(shares, total)
    assert sum(counts.values()) == total
    assert all(abs(counts[name] - weights * share) < 2 for name, (weights, share) in shares.items())
    assert exact_counts({}, 0) == {}
    with pytest.raises(ValueError, match="must be near the sum"):
        exact_counts({"w": (3, 0.5)}, 9)


def pruned_counts(report):
    return {x.fqn: round(x.sparsity * x.shape[0] * x.shape[1]) for x in report.linears}


RECIPES = [
    {"method": "magnitude", "scope": "global", "sparsity": 0.37},
    {"method": "wanda", "ratios": "owl", "sparsity": 0.61},
    {"method": "ria", "ratios": "owl", "compensate": "obs_one_shot", "bits": 4},
    {"method": "sparsegpt", "ratios": "owl", "sparsity": 0.43, "block_size": 32},
    {"method": "magnitude", "scope": "global", "compensate": "obs_sweep"},
]


@pytest.mark.parametrize("fields", RECIPES)
def test_the_model_loses_exactly_what_the_recipe_names(fields):
    model, recipe = tiny_model("llama"), Recipe(**{"owl_threshold": 3.0} | fields)
    report = compress_(model, recipe, tokens(4, 24))
    assert sum(pruned_counts(report).values()) == share_of(report.weights, recipe.sparsity)
    shares = {round(x.sparsity, 2) for x in report.linears}
    assert len(shares) > 1
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            assert int((module.to_dense() == 0).sum()) >= pruned_counts(report)[name]


def test_linears_that_become_factors_have_no_share_in_the_sparsity():
    fields = {"low_rank": 0.5, "low_rank_of": "weight", "low_rank_targets": ["q_proj", "o_proj"]}
    for method, options in (("wanda", {"ratios": "owl", "owl_threshold": 3.0}), ("magnitude", {"scope": "global"})):
        model = tiny_model("llama")
        report = compress_(model, Recipe(method=method, **options, **fields), tokens(4, 24))
        pruned = [x for x in report.linears if x.format == "bitmap"]
        assert len(pruned) == 15 and len(report.linears) == 21
        weights = sum(x.shape[0] * x.shape[1] for x in pruned)
        assert sum(pruned_counts(report)[x.fqn] for x in pruned) == int(weights * 0.5)


def test_owl_follows_the_outliers_of_each_block():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:, :3] *= 40
    report = compress_(model, Recipe.from_preset("wanda", ratios="owl"), tokens(4, 24))
    by_block = {i: {x.sparsity for x in report.linears if f"layers.{i}." in x.fqn} for i in range(3)}
    means = [sum(s) / len(s) for s in by_block.values()]
    assert means[1] < 0.45 < 0.5 < min(means[0], means[2])
    assert all(max(s) - min(s) < 0.01 for s in by_block.values())


def model_with_idle_experts(layers=3):
    """A router that sends every token to the same two of four experts."""
    model = tiny_model("mixtral", layers=layers)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.zero_()
    return model


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "prism"])
def test_owl_gives_experts_without_tokens_the_ratio_of_their_block(method):
    recipe = Recipe.from_preset(method, ratios="owl", owl_threshold=3.0, sparsity=0.6)
    report = compress_(model_with_idle_experts(), recipe, tokens(2, 24))
    assert sum(pruned_counts(report).values()) == int(report.weights * 0.6)
    by_block = [[x for x in report.linears if f"layers.{i}." in x.fqn] for i in range(3)]
    assert len({round(block[0].sparsity, 2) for block in by_block}) > 1
    for block in by_block:
        idle = [x for x in block if x.tokens == 0]
        assert len(idle) == 4 and all("experts" in x.fqn and x.method.startswith("magnitude") for x in idle)
        assert max(x.sparsity for x in block) - min(x.sparsity for x in block) < 0.01
        for x in idle:
            assert "no outliers known: the sparsity of its block's others" in x.notes
            assert any(note.startswith("no calibration token reached it") for note in x.notes)
        assert not any("no outliers known" in note for x in block if x.tokens for note in x.notes)


def test_idle_experts_do_not_change_what_owl_gives_the_others():
    """The share of outliers is that of the weights whose scores are known."""
    spread = [OutlierCount(100, 10), OutlierCount(100, 20), OutlierCount(100, 40)]
    idle = [OutlierCount(100, 10, 50), OutlierCount(100, 20, 50), OutlierCount(100, 40, 50)]
    assert owl_sparsities(spread, 0.5, 0.1) == pytest.approx(owl_sparsities(idle, 0.5, 0.1))
    uneven = [OutlierCount(100, 10, 900), OutlierCount(100, 20), OutlierCount(100, 40)]
    found = owl_sparsities(uneven, 0.5, 0.1)
    assert found[0] > found[1] > found[2]
    assert sum(s * (b.weights + b.unseen) for s, b in zip(found, uneven, strict=True)) == pytest.approx(0.5 * 1200)


def test_a_block_without_any_token_has_the_sparsity_of_the_recipe():
    found = owl_sparsities([OutlierCount(100, 10), OutlierCount(0, 0, 70), OutlierCount(100, 40)], 0.5, 0.1)
    assert found == pytest.approx([0.6, 0.5, 0.4])
    assert owl_sparsities([OutlierCount(0, 0, 70)], 0.5, 0.1) == [0.5]
    idle = [e for e in range(4) if e not in routed_experts()]
    recipe = Recipe.from_preset(
        "wanda", ratios="owl", targets=[rf"re:.*layers\.1\..*_proj\.{idle[0]}", r"re:.*layers\.[02]\..*_proj\.\d"]
    )
    report = compress_(model_with_idle_experts(), recipe, tokens(2, 24))
    alone = [x for x in report.linears if "layers.1." in x.fqn]
    assert len(alone) == 2 and all(abs(x.sparsity - 0.5) < 0.01 for x in alone)
    assert all("no outliers known: the sparsity of the recipe" in x.notes for x in alone)


def routed_experts():
    report = compress_(model_with_idle_experts(1), "wanda", tokens(2, 24))
    return {int(x.fqn.rsplit(".", 1)[1]) for x in report.linears if "experts" in x.fqn and x.tokens}


@pytest.mark.parametrize("fields", RECIPES[:2])
def test_streaming_gives_the_same(tmp_path, fields):
    model = tiny_model("llama", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    ids, emitted = tokens(4, 24), {}
    streamed = compress(tmp_path, fields, calibration=ids)
    expected = compress(model, fields, calibration=ids)
    left, right = streamed.model.state_dict(), expected.model.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    compress(
        tmp_path,
        fields,
        calibration=ids,
        keep_blocks=False,
        on_tensors=emitted.update,
        on_block=lambda index, prefix, modules: emitted.update(
            {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}
        ),
    )
    stored = {key: value for key, value in emitted.items() if key in right}
    assert all(torch.equal(value, right[key]) for key, value in stored.items())
    assert right.keys() - stored.keys() <= {"lm_head.weight", "model.embed_tokens.weight"}


def test_uniform_counts_are_known_beforehand():
    for fields in (
        {"score": "wanda"},
        {"score": "wanda", "scope": "matrix"},
        {"method": "sparsegpt", "block_size": 24},
        {"score": "wanda", "pattern": "5:12", "sparsity": 7 / 12},
    ):
        recipe, model = Recipe(**{"sparsity": 0.37} | fields), tiny_model("llama", layers=1)
        for linear in compress_(model, recipe, tokens(2, 16)).linears:
            n, k = linear.shape
            assert round(linear.sparsity * n * k) == promised(recipe, linear.shape)


#: fields, shape, zeros that are promised in all.
PROMISES = [
    ({"sparsity": 0.5}, (4, 3), 4),  # 1 of the 3 of each row
    ({"sparsity": 0.5, "scope": "matrix"}, (3, 3), 4),  # 4 of 9
    ({"sparsity": 0.3}, (4, 3), 0),
    ({"sparsity": 0.29}, (2, 100), 58),  # 0.29 * 100 is 28.999999999999996
    ({"sparsity": 1 / 3}, (2, 3), 2),
    ({"sparsity": 0.999}, (2, 1000), 1998),
    ({"sparsity": 0.999}, (2, 999), 1996),
    ({"sparsity": 0.999}, (2, 8), 14),
    ({"sparsity": 0.999, "scope": "matrix"}, (2, 8), 15),
    ({"pattern": "1:4"}, (3, 10), 3 * (3 + 3 + 1)),  # the last 2 keep ceil(2 / 4)
    ({"pattern": "1:4"}, (3, 3), 3 * 2),
    ({"pattern": "1:4"}, (3, 9), 3 * 6),  # the last 1 stays
    ({"pattern": "3:4"}, (3, 5), 3),
    ({"pattern": "2:4"}, (2, 7), 2 * 3),
    ({"method": "sparsegpt", "sparsity": 0.5, "block_size": 4}, (3, 9), 6 + 6 + 1),
    ({"method": "sparsegpt", "sparsity": 0.999, "block_size": 4}, (3, 9), 11 + 11 + 2),
    ({"sparsity": 0.5}, (0, 8), 0),
    ({"sparsity": 0.5}, (3, 0), 0),
]


@pytest.mark.parametrize(("fields", "shape", "zeros"), PROMISES)
def test_what_is_promised_is_what_is_pruned_and_one_less_fails(fields, shape, zeros, generator):
    recipe = Recipe(**({} if "method" in fields else {"score": "magnitude"}) | fields)
    assert promised(recipe, shape) == zeros
    weight = torch.randn(shape, generator=generator) + 3  # no zeros of its own
    if recipe.score == "sparsegpt":
        mask = obs_sweep(weight, torch.eye(shape[1]), sparsity=recipe.sparsity, block_size=recipe.block_size).mask
    else:
        mask = choose_mask(weight, recipe, None).mask
    assert int((~mask).sum()) == zeros
    require_pruned_as_named("up", pack_pruned(weight, mask, torch.float32), recipe)
    for row, column in (~mask).nonzero().tolist()[:: max(zeros // 8, 1)]:
        spoiled = mask.clone()
        spoiled[row, column] = True
        with pytest.raises(RuntimeError, match=r"up: .* of the packed weight must hold the \d+ zeros of \d+ weights"):
            require_pruned_as_named("up", pack_pruned(weight, spoiled, torch.float32), recipe)


def test_zeros_of_one_unit_do_not_count_for_another(generator):
    weight, everything = torch.randn(4, 8, generator=generator), torch.ones(4, 8, dtype=torch.bool)

    def refused(recipe, zeros, message, pruned=None):
        mask = everything.clone()
        mask[zeros] = False
        with pytest.raises(RuntimeError, match=message):
            require_pruned_as_named("up", pack_pruned(weight, mask, torch.float32), recipe, pruned)

    half = (slice(0, 2), slice(None))  # as many as 50 % asks for, all in two rows
    refused(Recipe(sparsity=0.5), half, r"up: row 2 of the packed weight must hold the 4 zeros of 8 weights .*, got 0")
    refused(Recipe(sparsity=0.5), half, r"row 2 .* the 3 zeros of 8 .*, got 0", pruned=13)
    refused(Recipe(pattern="2:4"), (slice(None), slice(0, 4)), "row 0, group 1 .* the 2 zeros of 4 weights .*, got 0")
    refused(Recipe(pattern="2:6"), (slice(None), slice(0, 6)), "the last group of row 0 .* the 1 zeros of 2 .*, got 0")
    swept = Recipe.from_preset("sparsegpt", block_size=4)
    refused(swept, (slice(None), slice(0, 4)), "columns 4 to 7 .* the 8 zeros of 16 weights .*, got 0")
    whole = Recipe(sparsity=0.5, scope="matrix")
    refused(whole, (slice(0, 1), slice(None)), "up: all of the packed weight must hold the 16 zeros of 32 .*, got 8")


def test_a_share_is_meant_as_it_is_written():
    for total in (*range(130), 999, 1000, 4096 * 11008):
        for thousandths in range(0, 1000, 1 if total < 130 else 37):
            assert share_of(total, thousandths / 1000) == total * thousandths // 1000
        for parts in range(1, 13):
            assert share_of(total * parts, 1 / parts) == total
    assert share_of(100, 0.28999999999999) == 28 and share_of(5, 1.0) == 5


def test_what_rounding_down_leaves_is_said():
    assert rounding_note(Recipe(sparsity=0.5), (4, 100)) == []
    note = "sparsity 0.333 instead of 0.5: counts are rounded down ([4, 3])"
    assert rounding_note(Recipe(sparsity=0.5), (4, 3)) == [note]
    assert rounding_note(Recipe(pattern="1:4"), (3, 10)) == [
        "sparsity 0.700 instead of 0.75: counts are rounded down ([3, 10])"
    ]
    report = compress_(tiny_model("llama", layers=1), Recipe(score="magnitude", pattern="1:60"))
    notes = {x.fqn.rsplit(".", 1)[1]: x.notes for x in report.linears}
    assert notes["up_proj"] == ("sparsity 0.969 instead of 0.983333: counts are rounded down ([96, 64])",)
    assert notes["down_proj"] == ()


def test_a_linear_that_holds_too_few_zeros_fails(monkeypatch):
    from prism_llm.pipeline import layer

    everything = lambda dense, *rest: (torch.ones_like(dense, dtype=torch.bool), None)  # noqa: E731
    monkeypatch.setattr(layer, "choose_mask", everything)
    with pytest.raises(RuntimeError, match=r"q_proj: row 0 of the packed weight must hold the 32 zeros of 64"):
        compress_(tiny_model("llama", layers=1), "wanda", tokens(2, 16))
