"""Whole models through `compress_`: every architecture, every preset, and what must not change or pass silently."""

import json
import math
import subprocess
import sys

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model, tokens
from torch import nn

from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    DualShiftLinear,
    LowRankLinear,
    PackedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
    TieredLinear,
)
from prism_llm import Recipe, compress, compress_
from prism_llm.calibration import CalibrationError
from prism_llm.models import DecoderAdapter
from prism_llm.pipeline import PRESETS
from prism_llm.pruning import hessian

MODULES = {
    "sinq": DualShiftLinear,
    "asinq": DualShiftLinear,
    "magnitude": BitmapLinear,
    "wanda": BitmapLinear,
    "ria": BitmapLinear,
    "clearcut": BitmapLinear,
    "sparsegpt": BitmapLinear,
    "prism": BitmapDualShiftLinear,
    "ls-prism": BitmapLinear,  # of the MLP; attention becomes factors
    "three-tier": TieredLinear,
}


def packed_modules(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_preset_on_every_architecture(architecture, preset):
    model = tiny_model(architecture, layers=2)
    dense = {name: m.weight.detach().clone() for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    report = compress_(model, preset, tokens(4, 24))
    packed = packed_modules(model)
    factors = {name for name, module in packed.items() if isinstance(module, LowRankLinear)}
    assert all(type(module) is MODULES[preset] for name, module in packed.items() if name not in factors)
    assert bool(factors) == (preset == "ls-prism")
    assert set(packed) == set(dense) - {"lm_head"} == {linear.fqn for linear in report.linears}
    assert bool(logits(model, tokens(2, 10)).isfinite().all())
    for linear in report.linears:
        assert linear.shape == tuple(dense[linear.fqn].shape)
        assert linear.nbytes == packed[linear.fqn].nbytes
        if linear.fqn in factors:
            assert linear.sparsity == 0 and 0 < linear.error < 1
            continue
        if preset != "three-tier":  # which counts blocks; see test_tiers
            assert linear.sparsity == pytest.approx(0.0 if preset in ("sinq", "asinq") else 0.5, abs=1e-9)
        zeros = (packed[linear.fqn].to_dense() == 0).float().mean()
        assert zeros >= linear.sparsity - 1e-6
        assert 0 < linear.error < (0.2 if preset in ("sinq", "asinq") else 1)
    assert json.loads(json.dumps(report.to_dict()))["totals"]["weights"] == sum(w.numel() for w in dense.values()) - (
        dense["lm_head"].numel()
    )


@pytest.mark.parametrize(
    ("changes", "module", "method"),
    [
        ({"method": "wanda", "bits": 4}, BitmapDualShiftLinear, "wanda > rtn"),
        ({"method": "wanda", "pattern": "2:4"}, Sparse24Linear, "wanda"),
        ({"method": "wanda", "score": "wanda_variant"}, BitmapLinear, "wanda_variant"),
        ({"method": "ria", "compensate": "obs_sweep", "scope": "row"}, BitmapLinear, "ria > obs_sweep"),
        ({"method": "ria", "score": "ri", "pattern": "4:8"}, BitmapLinear, "ri"),
        ({"method": "clearcut", "pattern": "1:4", "bits": 4}, BitmapDualShiftLinear, "clearcut > rtn"),
        ({"method": "wanda", "compensate": "obs_sweep"}, BitmapLinear, "wanda > obs_sweep"),
        ({"method": "ria", "compensate": "least_squares"}, BitmapLinear, "ria > obs_sweep"),
        ({"method": "wanda", "compensate": "least_squares", "max_tokens": None}, BitmapLinear, None),
        ({"method": "sparsegpt", "compensate": "least_squares", "pattern": "2:4"}, Sparse24Linear, None),
        ({"method": "asinq", "search_error": "l2"}, DualShiftLinear, "asinq scale > rtn"),
        ({"method": "sinq", "scale": "sinq_2d", "round": "hqq"}, DualShiftLinear, "sinq_2d scale > hqq"),
        ({"method": "wanda", "compensate": "obs_one_shot"}, BitmapLinear, "wanda > obs_one_shot"),
        ({"method": "sparsegpt", "bits": 4}, BitmapDualShiftLinear, "sparsegpt > obs_sweep > joint"),
        ({"method": "sparsegpt", "bits": 3, "group_size": 32, "scale": "rms"}, BitmapDualShiftLinear, None),
        ({"method": "sparsegpt", "bits": 4, "round": "rtn", "group_size": 64}, BitmapDualShiftLinear, None),
        ({"method": "sparsegpt", "pattern": "1:4"}, BitmapLinear, "sparsegpt > obs_sweep"),
        ({"method": "sparsegpt", "pattern": "2:4", "bits": 4}, Sparse24DualShiftLinear, None),
        ({"method": "sparsegpt", "sparsity": 0, "bits": 4}, DualShiftLinear, "obs_sweep > joint"),
        ({"method": "prism", "bits": None}, BitmapLinear, "prism > obs_one_shot"),
        ({"method": "prism", "score": "prism_masked", "pattern": "2:4"}, Sparse24DualShiftLinear, None),
        ({"method": "prism", "compensate": "obs_sweep", "round": "joint"}, BitmapDualShiftLinear, None),
        ({"method": "prism", "codebook": "nf4", "max_tokens": 32}, BitmapDualShiftLinear, None),
        ({"method": "sinq", "bits": 8}, DualShiftLinear, "sinq scale > rtn"),
        ({"method": "sinq", "bits": 3, "codebook": "nf3", "group_size": 40}, DualShiftLinear, None),
    ],
)
def test_stages_combine(changes, module, method):
    model = tiny_model("llama", layers=2)
    recipe = Recipe(**changes)
    report = compress_(model, recipe, tokens(4, 24))
    assert {type(m) for m in packed_modules(model).values()} == {module}
    assert {linear.sparsity for linear in report.linears} == {recipe.sparsity}
    assert method is None or {linear.method for linear in report.linears} == {method}
    assert bool(logits(model, tokens(2, 10)).isfinite().all())
    if recipe.pattern != "unstructured":
        n, m = map(int, recipe.pattern.split(":"))
        for packed in packed_modules(model).values():
            assert bool(((packed.to_dense() != 0).view(-1, m).sum(1) <= n).all())


def test_compensation_lowers_the_error_and_scores_matter():
    ids, errors = tokens(16, 48), {}
    for method in ("magnitude", "wanda", "sparsegpt"):
        model = tiny_model("llama", layers=1)
        dense = logits(model, ids)
        compress_(model, method, ids)
        errors[method] = float((logits(model, ids) - dense).norm() / dense.norm())
    assert errors["sparsegpt"] < errors["wanda"], errors


def test_later_blocks_are_calibrated_on_compressed_ones(monkeypatch):
    from prism_llm.pipeline import engine

    seen, compress_linear = {}, engine._compress_linear

    def spy(model, name, linear, recipe, statistics, *rest):
        seen[name] = statistics.sum_squares.clone()
        return compress_linear(model, name, linear, recipe, statistics, *rest)

    monkeypatch.setattr(engine, "_compress_linear", spy)
    model, ids = tiny_model("llama"), tokens(4, 24)
    compress_(model, "wanda", ids)
    # The compressed model's own activations are the statistics that its later blocks were compressed with.
    adapter, inputs = DecoderAdapter(model), {}
    for name in ("model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.k_proj"):
        model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: inputs.__setitem__(name, args[0].double().flatten(0, 1).square().sum(0))
        )
    logits(adapter.model, ids)
    for name, expected in inputs.items():
        torch.testing.assert_close(seen[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_inputs_give_identical_tensors_and_no_global_state_changes(preset):
    ids, states = tokens(4, 24), []
    for _ in range(2):
        model = tiny_model("qwen3", layers=2, dtype=torch.bfloat16)
        before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
        compress_(model, preset, ids)
        after = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_compress_leaves_its_model_alone():
    model, ids = tiny_model("llama", layers=2), tokens(4, 24)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = compress(model, "wanda", calibration=ids, sparsity=0.6)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not packed_modules(model) and len(packed_modules(result.model)) == 14
    assert result.recipe.sparsity == 0.6 == result.report.recipe["sparsity"]


def test_callbacks_see_every_block():
    model, blocks, steps = tiny_model("llama"), [], []
    compress_(
        model,
        "sinq",
        on_block=lambda index, prefix, modules: blocks.append((index, prefix, modules)),
        progress=lambda *step: steps.append(step),
    )
    assert [(index, prefix) for index, prefix, _ in blocks] == [(i, f"model.layers.{i}") for i in range(3)]
    assert steps == [(i + 1, 3, f"model.layers.{i}") for i in range(3)]
    for _, prefix, modules in blocks:
        assert len(modules) == 7
        assert all(model.get_submodule(n) is m and n.startswith(f"{prefix}.") for n, m in modules.items())


def test_data_free_recipes_run_no_forward(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("a forward ran"))
    assert compress_(model, "sinq").linears[0].error_measure == "weight"
    report = compress_(tiny_model("llama"), "magnitude", tokens())
    assert report.notes == ["calibration not used: the recipe is data-free"]


def test_targets_and_ignore():
    model = tiny_model("llama")
    report = compress_(model, Recipe.from_preset("sinq", targets=["re:.*mlp.*"], ignore=["lm_head", "down_proj"]))
    assert {x.fqn.rsplit(".", 1)[-1] for x in report.linears} == {"gate_proj", "up_proj"}
    assert report.left["model.layers.0.mlp.down_proj"] == "ignored by 'down_proj'"
    assert report.left["model.layers.0.self_attn.q_proj"] == "not a target"
    assert 0 < report.coverage < 0.6
    with pytest.raises(ValueError, match="targets must match a linear of the model, got 'q_porj'"):
        compress_(tiny_model("llama"), Recipe.from_preset("sinq", targets=["q_porj"]))
    with pytest.raises(ValueError, match=r"a linear to compress inside its decoder blocks.*outside the decoder blocks"):
        compress_(tiny_model("llama"), Recipe.from_preset("sinq", targets=["lm_head"], ignore=[]))


def test_calibration_must_be_usable():
    def attempt(calibration):
        compress_(tiny_model("llama", layers=1), "wanda", calibration)

    with pytest.raises(ValueError, match="for a recipe that is not data-free, got None"):
        attempt(None)
    with pytest.raises(ValueError, match=r"int64 token ids \[num, seqlen\], got torch.float32 \[2, 3\]"):
        attempt(torch.ones(2, 3))
    for empty in (torch.zeros(0, 8, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long)):
        with pytest.raises(ValueError, match="with at least one token"):
            attempt(empty)
    with pytest.raises(ValueError, match="from 0 to 255, got ids from 0 to 256"):
        attempt(torch.tensor([[0, 256]]))
    with pytest.raises(ValueError, match=r"seqlen at most 128 \(the model's context\), got 129"):
        attempt(torch.ones(1, 129, dtype=torch.long))


def test_broken_activations_and_weights_are_named():
    model = tiny_model("llama", layers=2)
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(float("inf"))
    with pytest.raises(CalibrationError, match=r"calibration of model\.layers\.1\.self_attn\.q_proj: activations must"):
        compress_(model, "wanda", tokens())
    model = tiny_model("llama", layers=1)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"mlp\.up_proj: weight must be finite, got nan at \[3, 5\]"):
        compress_(model, "sinq")


@pytest.mark.parametrize(
    ("preset", "method", "note"),
    [
        ("sparsegpt", "wanda", "fallback: no compensation, score wanda instead of sparsegpt"),
        ("prism", "prism > prism scale > rtn", "fallback: no compensation"),
    ],
)
def test_a_failed_factorization_falls_back_and_says_so(monkeypatch, preset, method, note):
    for find in ("_inverse", "_inverse_factor"):
        monkeypatch.setattr(hessian, find, lambda matrix: None)
    report = compress_(tiny_model("llama", layers=1), preset, tokens())
    for linear in report.linears:
        assert linear.method == method and linear.sparsity == 0.5
        assert linear.notes[0].startswith("Hessian not positive definite") and linear.notes[-1] == note
    assert note in str(report)


def test_the_report_adds_up():
    model = tiny_model("opt", dtype=torch.bfloat16)
    report = compress_(model, "prism", tokens(8, 32))
    assert report.nbytes == sum(m.nbytes for m in packed_modules(model).values())
    assert report.dense_nbytes == 2 * report.weights
    assert report.bits_per_weight == pytest.approx(8 * report.nbytes / report.weights)
    assert math.isclose(report.sparsity, 0.5) and 0.9 < report.coverage < 1
    assert all(x.tokens == 8 * 32 and x.error_measure == "output" for x in report.linears)
    assert "bits per weight, sparsity 0.5000" in str(report)


def test_the_package_imports_lean():
    code = (
        "import sys, prism_llm; loaded = {'torch', 'transformers', 'pydantic', 'datasets'} & set(sys.modules);"
        "assert not loaded, loaded; assert prism_llm.Recipe.from_preset('prism').bits == 4; dir(prism_llm)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import prism_llm

    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        prism_llm.compres  # noqa: B018
