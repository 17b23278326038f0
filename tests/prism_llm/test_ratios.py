"""Sparsity that is not the same for all: one threshold for a model, OWL, and counts that add up exactly."""

import math
import random

import pytest
import torch
from tiny_models import tiny_model, tokens

from prism_kernels.nn import PackedLinear
from prism_llm import Recipe, compress, compress_
from prism_llm.pipeline.allocation import least_pruned, require_pruned_as_named
from prism_llm.pruning import GlobalThreshold, Pattern, count_outliers, exact_counts, owl_sparsities, select_mask
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
    assert sum(pruned_counts(report).values()) == int(report.weights * recipe.sparsity)
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
    ):
        recipe, model = Recipe(**{"sparsity": 0.37} | fields), tiny_model("llama", layers=1)
        for linear in compress_(model, recipe, tokens(2, 16)).linears:
            n, k = linear.shape
            assert round(linear.sparsity * n * k) == least_pruned(recipe, linear.shape)
    assert least_pruned(Recipe(pattern="1:4"), (3, 10)) == 3 * (3 + 3 + 1)
    assert least_pruned(Recipe(pattern="3:4"), (3, 5)) == 3


def test_a_linear_that_holds_too_few_zeros_fails(generator, monkeypatch):
    packed = pack_pruned(torch.randn(4, 8, generator=generator), torch.ones(4, 8, dtype=torch.bool), torch.float32)
    require_pruned_as_named("up", packed, 0)
    with pytest.raises(RuntimeError, match=r"up: the packed weight must hold the 3 zeros of 32 .*, got 0"):
        require_pruned_as_named("up", packed, 3)
    from prism_llm.pipeline import layer

    everything = lambda dense, *rest: (torch.ones_like(dense, dtype=torch.bool), None)  # noqa: E731
    monkeypatch.setattr(layer, "choose_mask", everything)
    with pytest.raises(RuntimeError, match=r"q_proj: the packed weight must hold the \d+ zeros"):
        compress_(tiny_model("llama", layers=1), "wanda", tokens(2, 16))
