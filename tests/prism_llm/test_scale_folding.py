"""Column scales folded into neighbours: a dense model stays what it is, and a rounded one needs no second scale."""

import pytest
import torch
from tiny_models import tiny_model, tokens
from torch import nn

from prism_kernels.nn import PackedLinear
from prism_llm import Recipe, compress_
from prism_llm.models import DecoderAdapter, evaluation_mode
from prism_llm.pipeline.scale_folding import fold_column_scales

#: Architecture -> the linears whose column scale goes elsewhere.
QKV, GATED = {"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj", "down_proj"}
FOLDED = {
    "llama": QKV | GATED | {"o_proj"},
    "mistral": QKV | GATED | {"o_proj"},
    "qwen2": QKV | GATED | {"o_proj"},
    "qwen3": QKV | GATED | {"o_proj"},
    "gemma": QKV | {"gate_proj", "up_proj", "down_proj", "o_proj"},
    "gemma2": QKV | GATED | {"o_proj"},
    "gemma3": QKV | GATED | {"o_proj"},
    "opt": QKV | {"out_proj", "fc1", "fc2"},
    "gpt_neox": {"query_key_value", "dense_h_to_4h"},
    "phi3": {"qkv_proj", "gate_up_proj", "down_proj"},
}


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


def fold_all(model, **options):
    adapter, results = DecoderAdapter(model), []
    with evaluation_mode(model), torch.no_grad():
        probe = adapter.capture([tokens(1, 16)])
        for index in range(len(adapter.blocks)):
            results.append(fold_column_scales(adapter, index, probe, **options))
    return results


@pytest.mark.parametrize("architecture", FOLDED)
def test_a_dense_model_folded_alone_gives_its_outputs(architecture):
    model, ids = tiny_model(architecture, layers=2), tokens(2, 20)
    before, weights = logits(model, ids), {n: p.detach().clone() for n, p in model.named_parameters()}
    results = fold_all(model, group_size=16)
    after = logits(model, ids)
    assert float((after - before).norm() / before.norm()) < 1e-5
    for result in results:
        assert {name.rsplit(".", 1)[-1] for name in result.notes} == FOLDED[architecture]
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, weights[n])}
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert {f"{name}.weight" for r in results for name in r.notes} <= changed
    assert any(n.removesuffix(".weight") not in linears for n in changed)  # norms


def test_half_precision_costs_no_more_than_its_rounding():
    model, ids = tiny_model("llama", layers=2, dtype=torch.bfloat16), tokens(2, 20)
    before = logits(model, ids).float()
    assert all(result.notes and not result.refused for result in fold_all(model, group_size=16))
    assert float((logits(model, ids).float() - before).norm() / before.norm()) < 0.02


def test_what_is_not_exact_is_left_alone():
    """GELU does not let factors through, and a norm read by something else than linears stays."""
    model, ids = tiny_model("opt", layers=1, activation_function="gelu"), tokens(2, 20)
    before, fc2 = logits(model, ids), model.model.decoder.layers[0].fc2.weight.detach().clone()
    (result,) = fold_all(model, group_size=16)
    assert [pair.rsplit(".", 1)[-1] for pair in result.refused] == ["fc1 -> fc2"]
    assert "model.decoder.layers.0.fc2" not in result.notes
    assert torch.equal(model.model.decoder.layers[0].fc2.weight, fc2)
    assert float((logits(model, ids) - before).norm() / before.norm()) < 1e-5


def test_a_compressed_model_needs_no_second_scale():
    ids, errors = tokens(8, 32), {}
    for name, fields in {"none": {"scale": "none"}, "sinq": {}, "folded": {"fold": True}}.items():
        model = tiny_model("llama", layers=2)
        with torch.no_grad():  # uneven columns, which a column scale evens out
            for module in model.modules():
                if isinstance(module, nn.Linear) and module is not model.lm_head:
                    module.weight.mul_(
                        torch.logspace(-0.4, 0.4, module.in_features)[
                            torch.randperm(module.in_features, generator=torch.Generator().manual_seed(0))
                        ]
                    )
        dense = logits(model, ids)
        report = compress_(model, Recipe(method="sinq", bits=4, group_size=16, **fields))
        errors[name] = float((logits(model, ids) - dense).norm() / dense.norm())
        scales = [m.packed_weight().column_scale for m in model.modules() if isinstance(m, PackedLinear)]
        assert len(scales) == 14
        if name == "folded":
            assert all(bool((scale == 1).all()) for scale in scales)
            assert all("sinq column scale folded into" in linear.notes[0] for linear in report.linears)
    assert errors["folded"] < 0.95 * errors["none"] and errors["sinq"] < 0.95 * errors["none"], errors


def test_folding_goes_with_pruning_and_calibration():
    model = tiny_model("llama", layers=2)
    report = compress_(model, Recipe(method="prism", fold=True, pattern="2:4", permute="heuristic"), tokens(4, 24))
    assert all(any("folded into" in note for note in linear.notes) for linear in report.linears)
    assert bool(logits(model, tokens(2, 10)).isfinite().all())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "wanda", "fold": True}, "fold must be False where nothing is quantized"),
        ({"method": "asinq", "fold": True}, "scale must be one of rms, sinq, prism with fold, got asinq"),
    ],
)
def test_recipes_that_cannot_be_folded(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_a_checkpoint_holds_the_changed_neighbours(tmp_path):
    """Streamed block by block from disk, with the fold, the model on disk is the one folded in memory."""
    from tiny_text import tiny_folder, tiny_text
    from typer.testing import CliRunner

    from prism_llm.checkpoint import load, open_checkpoint
    from prism_llm.cli.main import app
    from prism_llm.models import load_network

    folder, text = tiny_folder(tmp_path / "dense"), tmp_path / "text.txt"
    text.write_text(tiny_text(), "utf-8")
    options = ["--method", "sinq", "--fold", "--bits", "3", "--rounding", "hqq", "--group-size", "16"]
    result = CliRunner().invoke(app, ["compress", str(folder), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert open_checkpoint(tmp_path / "out").recipe["fold"] is True
    model = load_network(str(folder))
    norm = model.model.layers[0].input_layernorm.weight.detach().clone()
    compress_(model, Recipe(method="sinq", fold=True, bits=3, round="hqq", group_size=16))
    loaded, ids = load(tmp_path / "out"), tokens(2, 10) % model.config.vocab_size
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    assert not torch.equal(loaded.model.layers[0].input_layernorm.weight, norm)
    more = ["--method", "ria", "--reconstruct", "--dataset", str(text), "--num-samples", "4", "--seqlen", "32"]
    result = CliRunner().invoke(app, ["compress", str(folder), "-o", str(tmp_path / "b"), *more])
    assert result.exit_code == 0, result.output
    assert open_checkpoint(tmp_path / "b").report["linears"][0]["method"] == "ria > obs_sweep"
    result = CliRunner().invoke(
        app, ["compress", str(folder), "-o", str(tmp_path / "c"), *more, "--compensate", "none"]
    )
    assert result.exit_code == 2 and "--reconstruct: must go with --compensate obs_sweep" in result.output
