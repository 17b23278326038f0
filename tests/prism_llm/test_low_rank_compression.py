"""Low rank: factors are the best possible, ranks follow their rules, and every role is stored, loaded and counted."""

import math
import random

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tokens
from tiny_text import tiny_folder, tiny_text

from prism_kernels.nn import BitmapDualShiftLinear, LowRankLinear, PackedLinear
from prism_llm import Recipe, compress_
from prism_llm.calibration import InputStatistics
from prism_llm.lowrank import break_even_rank, factorize, kmif_rank
from prism_llm.lowrank.kmif import outliers, split_in_two
from prism_llm.pipeline.low_rank import compress_low_rank, module_patterns
from prism_llm.pruning import HessianSolver


def matrices(seed, count=200):
    """(matrix float64 [n, k] with ties and dead lines, Cholesky factor of a positive definite [k, k], a generator)."""
    for case in range(count):
        draw = random.Random(f"{seed}-{case}")
        generator = torch.Generator().manual_seed(draw.randrange(2**31))
        n, k = draw.randint(1, 12), draw.randint(1, 12)
        weight = torch.randn(n, k, generator=generator, dtype=torch.float64)
        if draw.random() < 0.3:
            weight = weight.round()
        if draw.random() < 0.3:
            weight[draw.randrange(n)] = 0
        if draw.random() < 0.3:
            weight[:, draw.randrange(k)] = 0
        x = torch.randn(20, k, generator=generator, dtype=torch.float64)
        yield weight, torch.linalg.cholesky(x.T @ x + 0.01 * torch.eye(k, dtype=torch.float64)), draw


def test_factors_reach_the_bound_of_their_rank():
    """The error is that of the discarded singular values, which no matrix of that rank can beat."""
    for weight, _, draw in matrices("plain"):
        rank = draw.randint(1, min(weight.shape))
        found = factorize(weight, rank)
        assert found.rank == rank and found.a.shape == (rank, weight.shape[1])
        least = float(torch.linalg.svdvals(weight)[rank:].square().sum().sqrt())
        error = float((weight - found.b @ found.a).norm())
        assert error == pytest.approx(least, rel=1e-9, abs=1e-9 * (1 + float(weight.norm())))
        # The singular values are halved between the factors.
        assert torch.allclose(found.a.norm(dim=1), found.b.norm(dim=0), atol=1e-9)


def test_weighted_factors_reach_the_bound_in_the_norm_of_outputs():
    for weight, factor, draw in matrices("weighted"):
        rank = draw.randint(1, min(weight.shape))
        found, plain = factorize(weight, rank, factor), factorize(weight, rank)
        least = float(torch.linalg.svdvals(weight @ factor)[rank:].square().sum().sqrt())
        error = float(((weight - found.b @ found.a) @ factor).norm())
        assert error == pytest.approx(least, rel=1e-7, abs=1e-9 * (1 + float((weight @ factor).norm())))
        assert error <= float(((weight - plain.b @ plain.a) @ factor).norm()) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("rank", "expected"), [(0.3, 6), (0.01, 1), (1.0, 20), (0.5, 10), (7, 7), (500, 20), ("kmif", None)]
)
def test_ranks(generator, rank, expected):
    weight = torch.randn(20, 31, generator=generator)
    found = factorize(weight, rank).rank
    assert found == (kmif_rank(torch.linalg.svdvals(weight), 20, 31) if expected is None else expected)


@pytest.mark.parametrize("rank", [0, -1, 0.0, 1.5, True, "best", float("nan")])
def test_ranks_that_are_none(rank):
    with pytest.raises(ValueError, match="factorize: rank must be an integer >= 1"):
        factorize(torch.ones(2, 2), rank)


def test_two_clusters_are_the_best_split():
    for case in range(200):
        draw = random.Random(f"clusters-{case}")
        values = sorted(draw.choice([draw.gauss(0, 1), draw.gauss(4, 1)]) for _ in range(draw.randint(1, 14)))[::-1]
        if draw.random() < 0.3:
            values = [float(round(v)) for v in values]

        def within(part):
            mean = sum(part) / len(part)
            return sum((v - mean) ** 2 for v in part)

        found = split_in_two(np.array(values))
        if len(values) < 2 or values[0] == values[-1]:
            assert found == len(values)
            continue
        costs = {at: within(values[:at]) + within(values[at:]) for at in range(1, len(values))}
        assert costs[found] <= min(costs.values()) + 1e-9


def test_the_forest_isolates_what_lies_apart_and_is_the_same_every_time():
    values = np.sort(np.random.RandomState(0).normal(size=300))[::-1].copy()
    values[0] = 60.0
    state = np.random.get_state()[1].copy()
    found = outliers(values)
    assert found[0] and found.sum() <= math.ceil(0.1 * len(values))
    assert not found[100:200].any()  # the dense middle
    assert np.array_equal(found, outliers(values)) and np.array_equal(state, np.random.get_state()[1])
    assert not outliers(np.zeros(1)).any() and not outliers(np.zeros(50)).any()


def test_kmif_keeps_the_dominant_cluster_and_is_capped():
    spectrum = torch.cat([torch.linspace(110, 90, 8), torch.linspace(1.1, 0.9, 56)])
    assert 8 <= kmif_rank(spectrum, 64, 64) <= 8 + 7
    assert kmif_rank(torch.ones(64), 64, 64) == int(0.9 * 32)  # equal values are one cluster
    assert kmif_rank(torch.zeros(5), 5, 9) == 1 and kmif_rank(torch.zeros(0), 0, 9) == 1
    assert kmif_rank(torch.tensor([1.0, 0.0, 0.0]), 3, 3) == 1


def statistics_of(x):
    statistics = InputStatistics(x.shape[1], hessian=True)
    statistics.add(x)
    return statistics


@pytest.mark.parametrize("weighting", ["none", "activations"])
def test_a_correction_of_the_residual_lowers_the_error(generator, weighting):
    x = torch.randn(512, 64, generator=generator) * torch.logspace(-1, 1, 64)
    weight, statistics = torch.randn(48, 64, generator=generator), statistics_of(x)
    fields = {"sparsity": 0.5, "bits": 4, "low_rank_of": "residual", "low_rank_weighting": weighting}
    errors = []
    for rank in (1, 4, 16):
        recipe = Recipe(low_rank=rank, **fields)
        result = compress_low_rank("w", weight, recipe, statistics, HessianSolver(statistics))
        assert isinstance(result.packed.base, BitmapDualShiftLinear.FORMAT) and result.packed.rank == rank
        assert result.pruned == 48 * 32
        assert result.stages.startswith("wanda > rms scale > rtn > ")
        assert result.stages.endswith(f"svd of the residual, rank {rank}")
        errors.append(float((x @ (result.packed.to_dense(torch.float32) - weight).T).norm()))
    base = float((x @ (result.packed.base.to_dense(torch.float32) - weight).T).norm())
    assert errors == sorted(errors, reverse=True) and errors[0] < base


def test_weighting_by_activations_pays_in_outputs(generator):
    x = torch.randn(512, 64, generator=generator) * torch.logspace(-1, 1, 64)
    weight, statistics, errors = torch.randn(48, 64, generator=generator), statistics_of(x), {}
    for weighting in ("none", "activations"):
        recipe = Recipe(low_rank=16, low_rank_weighting=weighting)
        assert recipe.needs_calibration == (weighting == "activations")
        packed = compress_low_rank("w", weight, recipe, statistics, HessianSolver(statistics)).packed
        errors[weighting] = float((x @ (packed.to_dense(torch.float32) - weight).T).norm())
    assert errors["activations"] < 0.5 * errors["none"], errors


def test_factors_larger_than_the_matrix_are_warned_of(generator):
    weight = torch.randn(32, 32, generator=generator)
    assert break_even_rank(32, 32) == 16
    fits = compress_low_rank("w", weight, Recipe(low_rank=16)).notes
    larger = compress_low_rank("w", weight, Recipe(low_rank=17)).notes
    assert fits == [] and "factors of rank 17 are larger than the matrix" in larger[0]


@pytest.mark.parametrize(
    ("text", "names", "others"),
    [
        ("q,k,v,o", ["l.0.self_attn.q_proj", "h.attn.k", "x.v_proj", "l.out_proj"], ["l.up_proj", "kq_proj", "lo"]),
        ("up , down_proj", ["l.mlp.up_proj", "l.mlp.down_proj"], ["l.mlp.gate_proj"]),
        ("re:.*mlp.*,x", ["a.mlp.b,x"], ["a.mlp.b"]),
    ],
)
def test_short_names_of_modules(text, names, others):
    from torch import nn

    from prism_kernels.swap import matches

    patterns, linear = module_patterns(text), nn.Linear(1, 1)
    assert all(any(matches(p, name, linear) for p in patterns) for name in names)
    assert not any(matches(p, name, linear) for p in patterns for name in others)


CASES = {
    "weight": dict(method="wanda", low_rank=0.3, low_rank_targets=module_patterns("q,k,v,o")),
    "only": dict(low_rank=0.3, low_rank_targets=module_patterns("q,k,v,o")),
    "pruned": dict(method="clearcut", pattern="2:4", permute="heuristic", low_rank=5, low_rank_targets=("q_proj",)),
    "residual": dict(method="prism", low_rank=4, low_rank_of="residual", low_rank_weighting="activations"),
    "owl": dict(method="wanda", ratios="owl", low_rank=0.3, low_rank_targets=("down_proj",)),
}


@pytest.mark.parametrize("case", CASES)
def test_whole_models_are_factorized_stored_and_loaded(case, tmp_path):
    from prism_llm.checkpoint import load, open_checkpoint, save, verify

    recipe, model, ids = Recipe(**CASES[case]), tiny_model("llama", layers=2, dtype=torch.bfloat16), tokens(4, 24)
    assert Recipe(**recipe.to_dict()) == recipe
    report = compress_(model, recipe, ids if recipe.needs_calibration else None)
    packed = {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    packed = {name: module for name, module in packed.items() if ".base" not in name}
    factors = {name for name, module in packed.items() if isinstance(module, LowRankLinear)}
    wanted = {"weight": 8, "only": 8, "pruned": 2, "residual": 14, "owl": 2}[case]
    assert len(factors) == wanted and len(packed) == (8 if case == "only" else 14)
    for linear in report.linears:
        module = packed[linear.fqn]
        assert linear.nbytes == module.nbytes
        if linear.fqn in factors:
            n, k = linear.shape
            alone = 2 * module.packed_weight().rank * (n + k)
            assert linear.nbytes == alone + (0 if module.base is None else module.base.nbytes)
            assert "svd of the " in linear.method and linear.sparsity == (0.5 if case == "residual" else 0)
            if case == "residual":
                assert isinstance(module.base, BitmapDualShiftLinear) and linear.error < 0.8
        else:
            assert linear.sparsity > 0 and isinstance(module, PackedLinear)
    if case == "only":
        assert all(why == "not a target of low_rank" for name, why in report.left.items() if name != "lm_head")
    if case == "owl":
        counted = [(x.sparsity * math.prod(x.shape), math.prod(x.shape)) for x in report.linears if x.sparsity]
        assert sum(c for c, _ in counted) / sum(t for _, t in counted) == pytest.approx(0.5, abs=1e-3)
    saved = save(model, tmp_path / "model", recipe=recipe, report=report)
    verify(saved)
    checkpoint, again = open_checkpoint(saved), load(saved)
    assert {name: checkpoint.module_nbytes(name) for name in packed} == {x.fqn: x.nbytes for x in report.linears}
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_ls_prism_has_two_levels(tmp_path):
    from prism_llm.pipeline.presets import LS_PRISM_LEVELS

    for level, sparsity in LS_PRISM_LEVELS.items():
        model = tiny_model("llama", layers=1)
        report = compress_(model, Recipe.from_preset("ls-prism", sparsity=sparsity), tokens(4, 24))
        for linear in report.linears:
            if "self_attn" in linear.fqn:
                assert linear.format == "low_rank" and "svd of the weight" in linear.method, level
                assert not any("larger" in note for note in linear.notes)  # KMIF is capped below the matrix
            else:
                assert linear.format == "bitmap" and linear.sparsity == pytest.approx(sparsity, abs=1e-3)


def test_targets_that_match_nothing_fail():
    recipe = Recipe(method="wanda", low_rank=0.3, low_rank_targets=("q_proj", "query"))
    with pytest.raises(ValueError, match="low_rank_targets must each match a linear to compress, got 'query'"):
        compress_(tiny_model("llama", layers=1), recipe, tokens(4, 24))


def test_the_commands(tmp_path):
    from typer.testing import CliRunner

    from prism_llm.checkpoint import open_checkpoint
    from prism_llm.cli.main import app

    dense, text = tiny_folder(tmp_path / "dense"), tmp_path / "text.txt"
    text.write_text(tiny_text(), "utf-8")

    def run(out, *options):
        common = ["compress", dense, "-o", tmp_path / out, "--dataset", text, "--num-samples", 4, "--seqlen", 32]
        return CliRunner().invoke(app, [str(x) for x in (*common, *options)])

    options = ("--method", "clearcut", "--pattern", "2:4", "--low-rank", "0.3", "--target-modules", "q,k,v,o")
    assert run("a", *options).exit_code == 0
    formats = {name.rsplit(".", 1)[-1]: m["format"] for name, m in open_checkpoint(tmp_path / "a").modules.items()}
    assert {formats[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj")} == {"low_rank"}
    assert {formats[name] for name in ("up_proj", "gate_proj", "down_proj")} == {"sparse24"}
    assert run("b", "--method", "ls-prism", "--preset", "aggressive").exit_code == 0
    checkpoint = open_checkpoint(tmp_path / "b")
    assert checkpoint.recipe["sparsity"] == 0.5 and checkpoint.recipe["low_rank"] == "kmif"
    warned = run("d", "--method", "wanda", "--low-rank", "0.9", "--target-modules", "q,k,v,o")
    assert warned.exit_code == 0 and "larger than the matrix" in warned.stdout and "more such notes" in warned.stdout
    for wrong, message in (
        (("--low-rank", "much"), '--low-rank: must be a share, a rank, or "kmif"'),
        (("--target-modules", "q"), "--target-modules: must come with --low-rank"),
        (("--preset", "aggressive"), "--preset: must come with --method ls-prism"),
        (("--method", "ls-prism", "--preset", "brave"), "--preset: must be one of conservative, aggressive"),
        (("--low-rank", "0.3", "--method", "three-tier"), "low_rank must be None with tiers"),
    ):
        result = run("c", *wrong)
        assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output


def test_a_weight_comes_back_as_it_was(generator):
    """Its memory is free while a decomposition runs; what follows, also after an error, reads it again."""
    recipe = Recipe.from_preset("ls-prism")
    weight = torch.nn.Parameter(torch.randn(24, 32, generator=generator).bfloat16(), requires_grad=False)
    before = weight.detach().clone()
    compress_low_rank("q", weight, recipe)
    assert weight.dtype == torch.bfloat16 and torch.equal(weight, before)
    with pytest.raises(ValueError, match="rank must be"):
        compress_low_rank("q", weight, recipe.model_copy(update={"low_rank": 0}))
    assert weight.dtype == torch.bfloat16 and torch.equal(weight, before)
