"""Channel permutation for n:m: the searches against enumeration, and models that compute the same in another order."""

import itertools
import random
import sys

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model, tokens
from torch import nn

from prism_kernels.formats import PermutedWeight
from prism_kernels.nn import PackedLinear, PermutedLinear
from prism_llm import Recipe, compress, compress_
from prism_llm.calibration import InputStatistics, StatisticsCollector
from prism_llm.checkpoint import compress_to_checkpoint, load, save
from prism_llm.models import DecoderAdapter
from prism_llm.pipeline.folding import fold_permutations
from prism_llm.pipeline.selection import choose_mask
from prism_llm.pruning import Pattern, find_permutation, permutation, permuted_mask, within_heads
from prism_llm.pruning.permutation import assigned_order, best_givers, heuristic_order, kept_score

PATTERNS = ("1:4", "2:4", "3:4", "4:8", "2:3", "1:2")


def kept_of(columns, keep):
    """The sum over the rows of the `keep` largest of the given columns."""
    return sum(sum(sorted(row, reverse=True)[:keep]) for row in zip(*columns, strict=True))


def test_an_assignment_is_the_best_of_all():
    """200 cases with ties and dead columns against every way to hand the columns of one slot out."""
    for case in range(200):
        draw, generator = random.Random(case), torch.Generator().manual_seed(case)
        n, groups, m = draw.randint(1, 5), draw.randint(1, 5), draw.randint(2, 5)
        scores = torch.rand(n, groups, m, generator=generator)
        if draw.random() < 0.5:
            scores = (scores * 4).round() / 4
        scores[:, draw.randrange(groups), draw.randrange(m)] = 0
        slot, keep = draw.randrange(m), draw.randint(1, m - 1)
        columns = scores.double().permute(1, 2, 0).tolist()

        # What group b keeps with the column of group a in its slot; groups do not depend on each other.
        kept = [
            [kept_of([*group[:slot], columns[a][slot], *group[slot + 1 :]], keep) for a in range(groups)]
            for group in columns
        ]

        def total(givers, kept=kept):
            return sum(row[a] for row, a in zip(kept, givers, strict=True))

        ours = best_givers(scores, slot, keep).tolist()
        assert sorted(ours) == list(range(groups))
        best = max(total(givers) for givers in itertools.permutations(range(groups)))
        assert total(ours) == pytest.approx(best, rel=1e-5)


def test_the_heuristic_deals_strong_and_weak_channels_out(generator):
    score = torch.arange(12.0).repeat(3, 1)[:, torch.randperm(12, generator=generator)]
    order = heuristic_order(score, 4)
    assert score[0, order].view(3, 4).tolist() == [[0, 5, 6, 11], [1, 4, 7, 10], [2, 3, 8, 9]]


@pytest.mark.parametrize("method", ["heuristic", "lsa"])
def test_no_order_keeps_less_than_the_given_one(method, monkeypatch):
    found = 0
    for case in range(60):
        draw, generator = random.Random(case), torch.Generator().manual_seed(case)
        pattern = Pattern.parse(draw.choice(PATTERNS))
        n, k = draw.randint(1, 9), draw.randint(1, 40)
        score = torch.rand(n, k, generator=generator) * torch.rand(k, generator=generator).pow(3)
        monkeypatch.setattr(permutation, "MAX_GROUPS", draw.choice([1024, 3, 1]))
        index = find_permutation(score, pattern, method)
        mask = permuted_mask(score, pattern, index)
        if index is None:
            continue
        found += 1
        assert sorted(index.tolist()) == list(range(k))
        whole = k - k % pattern.m
        assert index[whole:].tolist() == list(range(whole, k))
        assert kept_score(score[:, index], pattern) > kept_score(score, pattern)
        groups = mask[:, index][:, :whole].reshape(n, -1, pattern.m)
        assert bool((groups.sum(2) == pattern.n).all())
        values = score[:, index][:, :whole].reshape(n, -1, pattern.m)
        assert bool((values.masked_fill(~groups, 2).amin(2) >= values.masked_fill(groups, -1).amax(2)).all())
        assert torch.equal(index, find_permutation(score, pattern, method))
    assert found > 30


def test_lsa_keeps_more_than_the_heuristic(generator):
    pattern = Pattern(2, 4)
    score = torch.rand(32, 256, generator=generator).pow(2) * torch.rand(256, generator=generator).pow(4)
    first = heuristic_order(score, 4)
    kept = [kept_score(score[:, order], pattern) for order in (first, assigned_order(score, first, pattern))]
    assert kept_score(score, pattern) < kept[0] < kept[1]


def test_a_missing_solver_is_told_before_the_work(monkeypatch):
    model = tiny_model("llama", layers=1)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    monkeypatch.setattr(DecoderAdapter, "capture", lambda *arguments: pytest.fail("calibration ran"))
    recipe = Recipe(score="wanda", pattern="2:4", permute="lsa")
    with pytest.raises(ModuleNotFoundError, match=r"permute 'lsa' needs scipy \(pip install scipy\)"):
        compress_(model, recipe, tokens(2, 8))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="pattern must be n:m, got unstructured"):
        find_permutation(torch.ones(2, 8), Pattern(), "lsa")
    with pytest.raises(ValueError, match="method must be 'heuristic' or 'lsa', got 'none'"):
        find_permutation(torch.ones(2, 8), Pattern(2, 4), "none")
    with pytest.raises(ValueError, match="head_size must be a multiple of 4, got 6"):
        within_heads(6, 1, Pattern(2, 4), "lsa")


def test_heads_that_share_values_share_their_order(generator):
    score = torch.rand(16, 2 * 3 * 8, generator=generator).pow(3)  # 2 key-value heads, 3 readers each, of 8 channels
    index = within_heads(8, 3, Pattern(2, 4), "lsa")(score).view(2, 3, 8)
    for group in range(2):
        for reader in range(3):
            begin = (group * 3 + reader) * 8
            assert torch.equal(index[group, reader] - begin, index[group, 0] - group * 24)
            assert sorted((index[group, reader] - begin).tolist()) == list(range(8))


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


def fold_all(model, recipe, ids):
    """Permutes the dense model, block by block; returns the notes and what the statistics became."""
    adapter, notes = DecoderAdapter(model), {}
    inputs = adapter.capture([ids])
    for index, prefix in enumerate(adapter.prefixes):
        block = model.get_submodule(prefix)
        linears = {f"{prefix}.{n}": m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
        collector = StatisticsCollector(linears, hessian=True)
        collector.run([lambda index=index: adapter.run_block(index, inputs.hidden[0], inputs.calls[0][index])])
        known = collector.statistics
        notes |= fold_permutations(adapter, index, linears, recipe, known, inputs)
        again = StatisticsCollector(linears, hessian=True)
        again.run([lambda index=index: adapter.run_block(index, inputs.hidden[0], inputs.calls[0][index])])
        for name in linears:
            torch.testing.assert_close(
                known[name].sum_squares, again.statistics[name].sum_squares, rtol=1e-4, atol=1e-6
            )
            torch.testing.assert_close(known[name].gram, again.statistics[name].gram, rtol=1e-4, atol=1e-4)
        inputs.hidden[0] = adapter.run_block(index, inputs.hidden[0], inputs.calls[0][index])
    return notes


FOLDED = {"gpt_neox": 1, "phi3": 1}  # one fused matrix holds queries, keys and values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_permuted_dense_model_computes_the_same(architecture, dtype):
    model, ids = tiny_model(architecture, layers=2, dtype=dtype), tokens(2, 24)
    before, weights = logits(model, ids), {n: p.clone() for n, p in model.named_parameters()}
    notes = fold_all(model, Recipe(score="wanda", pattern="2:4", permute="lsa"), ids)
    assert len(notes) == 2 * FOLDED.get(architecture, 2), notes
    after = logits(model, ids)
    limit = 1e-4 if dtype == torch.float32 else 0.05
    assert float((after - before).float().norm()) <= limit * float(before.float().norm())
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, weights[name])]
    assert moved
    for name in moved:
        values = dict(model.named_parameters())[name].flatten().sort().values
        assert torch.equal(values, weights[name].flatten().sort().values)


class Gains(nn.Module):
    """Multiplies each channel by a number of its own, as a norm between producer and consumer does."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Buffer(torch.linspace(0.9, 1.1, width))

    def forward(self, module, arguments):
        return (arguments[0] * self.gain,)


def test_what_lies_between_undoes_a_fold():
    model, ids = tiny_model("llama", layers=1), tokens(2, 24)
    layer = model.model.layers[0]
    layer.mlp.down_proj.register_forward_pre_hook(Gains(96))
    weights = {n: p.clone() for n, p in model.named_parameters()}
    notes = fold_all(model, Recipe(score="wanda", pattern="2:4", permute="heuristic"), ids)
    assert set(notes) == {"model.layers.0.self_attn.o_proj"}
    assert all(torch.equal(p, weights[n]) for n, p in layer.mlp.named_parameters(prefix="model.layers.0.mlp"))
    report = compress_(model, Recipe(score="wanda", pattern="2:4", permute="lsa"), ids)
    formats = {x.fqn.rsplit(".", 1)[-1]: x.format for x in report.linears}
    assert (formats["o_proj"], formats["down_proj"]) == ("sparse24", "permuted")


RECIPES = [
    ({"score": "magnitude"}, "sparse24"),
    ({"score": "ri", "permute": "heuristic"}, "sparse24"),
    ({"score": "wanda", "compensate": "obs_sweep"}, "sparse24"),
    ({"score": "ria", "compensate": "obs_one_shot", "bits": 4, "group_size": 32}, "sparse24_dual_shift"),
    ({"score": "clearcut", "pattern": "4:8", "bits": 3, "scale": "sinq"}, "bitmap_dual_shift"),
    ({"score": "prism_masked", "pattern": "1:4"}, "bitmap"),
    (
        {"score": "wanda", "compensate": "obs_sweep", "round": "joint", "bits": 4, "group_size": None},
        "sparse24_dual_shift",
    ),
]


@pytest.mark.parametrize(("fields", "base"), RECIPES)
def test_stages_combine(fields, base):
    ids, recipe = tokens(4, 48), Recipe(**{"pattern": "2:4", "permute": "lsa"} | fields)
    model, plain = tiny_model("llama", layers=2), tiny_model("llama", layers=2)
    report = compress_(model, recipe, ids)
    n, m = map(int, recipe.pattern.split(":"))
    packed = {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    permuted = [module for module in packed.values() if isinstance(module, PermutedLinear)]
    assert permuted and {module.base.FORMAT.NAME for module in permuted} == {base}
    for linear in report.linears:
        module = packed[linear.fqn]
        assert linear.nbytes == module.nbytes and linear.sparsity == recipe.sparsity
        assert ("permutation" in linear.method) == isinstance(module, PermutedLinear)
        assert any("folded into" in note for note in linear.notes) == linear.fqn.endswith(("o_proj", "down_proj"))
        inner = module.base if isinstance(module, PermutedLinear) else module
        assert bool(((inner.to_dense() != 0).view(-1, m).sum(1) <= n).all())
    worse = compress_(plain, recipe.replace(permute="none"), ids)
    assert sum(x.error for x in report.linears) < sum(x.error for x in worse.linears)


def test_the_mask_is_what_the_score_wants_in_its_order(generator):
    for case in range(200):
        draw = random.Random(case)
        n, k = draw.randint(1, 6), draw.randint(1, 24)
        weight = (torch.randn(n, k, generator=generator) * 2).round() / 2  # ties and zeros
        weight[:, draw.randrange(k)] = 0
        x = torch.randn(9, k, generator=generator)
        x[:, draw.randrange(k)] = 0
        statistics = InputStatistics(k, hessian=False)
        statistics.add(x)
        recipe = Recipe(score="wanda", pattern=draw.choice(PATTERNS), permute=draw.choice(["heuristic", "lsa"]))
        mask, order = choose_mask(weight, recipe, statistics)
        order = torch.arange(k) if order is None else order
        keep, m = map(int, recipe.pattern.split(":"))
        scores = (weight.abs() * statistics.norms)[:, order].tolist()
        for i, row in enumerate(scores):
            for begin in range(0, k, m):
                group = range(begin, min(begin + m, k))
                wanted = sorted(group, key=lambda j: (row[j], j))[len(group) - -(-keep * len(group) // m) :]
                assert [bool(mask[i, order[j]]) for j in group] == [j in wanted for j in group]


def test_streaming_and_saving(tmp_path):
    model, ids = tiny_model("llama", layers=2, dtype=torch.bfloat16), tokens(4, 24)
    model.save_pretrained(tmp_path / "dense", max_shard_size="60KB")
    fields = {"method": "clearcut", "pattern": "2:4", "permute": "lsa"}
    streamed = compress(tmp_path / "dense", fields, calibration=ids)
    expected = compress(model, fields, calibration=ids)
    left, right = streamed.model.state_dict(), expected.model.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    wanted = logits(expected.model, ids)
    save(expected.model, tmp_path / "saved")
    assert torch.equal(logits(load(tmp_path / "saved"), ids), wanted)
    out = compress_to_checkpoint(tmp_path / "dense", tmp_path / "out", fields, calibration=ids, tokenizer=Silent())
    again = load(out)
    assert torch.equal(logits(again, ids), wanted)
    entry = again.prism_checkpoint.modules["model.layers.0.self_attn.q_proj"]
    assert entry["format"] == "permuted" and entry["base"]["format"] == "sparse24"


def test_producers_that_are_no_targets_are_permuted_and_stored(tmp_path):
    model, ids = tiny_model("llama", layers=2), tokens(4, 24)
    model.save_pretrained(tmp_path / "dense")
    fields = {"method": "wanda", "pattern": "2:4", "permute": "lsa", "targets": ["down_proj", "o_proj"]}
    expected = compress(model, fields, calibration=ids)
    assert {x.format for x in expected.report.linears} == {"sparse24"}
    up = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(expected.model.state_dict()[up], model.state_dict()[up])
    out = compress_to_checkpoint(tmp_path / "dense", tmp_path / "out", fields, calibration=ids, tokenizer=Silent())
    assert torch.equal(logits(load(out), ids), logits(expected.model, ids))


class Silent:
    def save_pretrained(self, folder):
        """Nothing to store."""


def test_experts_and_data_free_models_are_permuted_too():
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    sizes = dict(hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=1)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=8, num_experts_per_tok=2)
    config = Qwen3MoeConfig(vocab_size=256, max_position_embeddings=128, **sizes, **heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    report = compress_(model, Recipe(score="magnitude", pattern="2:4", permute="lsa"))
    folded = [x.fqn for x in report.linears if any("folded" in note for note in x.notes)]
    assert any(".experts.down_proj." in name for name in folded) and any("o_proj" in name for name in folded)
    assert bool(logits(model, tokens(2, 10)).isfinite().all())


def test_weights_in_the_layout_of_conv1d_are_folded_too():
    model, ids = tiny_model("gpt2", layers=1), tokens(4, 24)
    report = compress_(model, Recipe(score="wanda", pattern="2:4", permute="lsa"), ids)
    formats = {x.fqn.split("h.0.")[1]: x.format for x in report.linears}
    assert formats.pop("mlp.c_proj") == "sparse24" and set(formats.values()) == {"permuted"}


def test_a_permutation_alone_changes_no_output(generator):
    linear = nn.Linear(40, 24)
    weight = PermutedWeight.pack(
        linear.weight.detach(), torch.ones(24, 40, dtype=torch.bool), index=torch.randperm(40, generator=generator)
    )
    assert torch.equal(weight.to_dense(), linear.weight)
    x = torch.randn(7, 40, generator=generator)
    torch.testing.assert_close(PermutedLinear(weight, linear.bias)(x), linear(x), rtol=1e-5, atol=1e-6)
