"""Linears that are not nn.Linear (Conv1D, fused experts), tied weights, heads: compressed, or listed with a reason."""

import pytest
import torch
from tiny_models import OTHER_LAYOUTS, tiny_model, tokens
from torch import nn

from prism_kernels.nn import PackedLinear
from prism_llm import Recipe, compress, compress_
from prism_llm.checkpoint import compress_to_checkpoint, load, save
from prism_llm.models.linears import SeparateExperts, expose_linears
from prism_llm.pipeline import PRESETS
from prism_llm.recovery import Training, finetune

LINEARS = {
    "gpt2": {
        f"transformer.h.{i}.{n}" for i in range(2) for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    },
    "mixtral": {
        f"model.layers.{i}.{n}"
        for i in range(2)
        for n in (
            *(f"self_attn.{p}_proj" for p in "qkvo"),
            *(f"mlp.experts.{p}_proj.{e}" for p in ("gate_up", "down") for e in range(4)),
        )
    },
    "qwen3_moe": {
        *(f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkvo"),
        *(f"model.layers.0.mlp.experts.{p}_proj.{e}" for p in ("gate_up", "down") for e in range(4)),
        *(f"model.layers.1.mlp.{p}_proj" for p in ("gate", "up", "down")),
    },
}


def packed(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_exposed_linears_compute_the_same(architecture):
    model, ids = tiny_model(architecture, layers=2), tokens(3, 17)
    expected, before = logits(model, ids), {n: t.clone() for n, t in model.state_dict().items()}
    exposed = expose_linears(model)
    assert set(exposed.names) <= LINEARS[architecture]
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(logits(model, ids), expected, rtol=1e-5, atol=1e-5)
    exposed.restore_unless(())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert torch.equal(logits(model, ids), expected)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_every_preset_and_back_from_disk(architecture, preset, tmp_path):
    model, ids = tiny_model(architecture, layers=2), tokens(8, 24)
    names = {name for name, _ in model.named_parameters()}
    report = compress_(model, preset, ids)
    assert set(packed(model)) == LINEARS[architecture] == {linear.fqn for linear in report.linears}
    assert report.coverage > 0.85
    for name in report.left:  # all that is left has a reason, and is there
        assert name == "lm_head" or name in names
    expected = logits(model, ids[:2])
    assert bool(expected.isfinite().all())
    save(model, tmp_path / "model", recipe=report.recipe, report=report)
    assert torch.equal(logits(load(tmp_path / "model"), ids[:2]), expected)


@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_from_folder_to_checkpoint(architecture, tmp_path):
    from tiny_text import tiny_tokenizer

    model, ids = tiny_model(architecture, layers=2), tokens(8, 24)
    model.save_pretrained(tmp_path / "dense")
    out = compress_to_checkpoint(
        tmp_path / "dense", tmp_path / "out", "wanda", calibration=ids, tokenizer=tiny_tokenizer("a b c")
    )
    report = compress_(model, "wanda", ids)
    loaded = load(out)
    assert set(packed(loaded)) == {linear.fqn for linear in report.linears}
    assert torch.equal(logits(loaded, ids[:2]), logits(model, ids[:2]))
    assert not any("whole model was loaded" in note for note in loaded.prism_checkpoint.report["notes"])


def test_a_compressed_conv1d_is_its_transpose():
    model = tiny_model("gpt2", layers=1)
    dense = model.transformer.h[0].mlp.c_fc.weight.detach().clone()
    compress_(model, Recipe.from_preset("magnitude", sparsity=0.5))
    decoded = model.transformer.h[0].mlp.c_fc.to_dense()
    assert decoded.shape == dense.T.shape
    assert torch.equal(decoded, torch.where(decoded != 0, dense.T, 0))


def test_what_is_not_chosen_keeps_its_layout(tmp_path):
    model = tiny_model("mixtral", layers=1)
    report = compress_(model, Recipe.from_preset("wanda", targets=["q_proj"]), tokens())
    assert set(packed(model)) == {"model.layers.0.self_attn.q_proj"}
    assert type(model.model.layers[0].mlp.experts).__name__ == "MixtralExperts"
    assert "3-D parameter" in report.left["model.layers.0.mlp.experts.gate_up_proj"]
    model = tiny_model("gpt2", layers=1)
    report = compress_(model, Recipe.from_preset("wanda", targets=["c_fc"]), tokens())
    assert report.left["transformer.h.0.attn.c_attn"] == "not a target"
    assert type(model.transformer.h[0].attn.c_attn).__name__ == "Conv1D"
    ids, out = tokens(2, 9), save(model, tmp_path / "model")
    assert torch.equal(logits(load(out), ids), logits(model, ids))
    model = tiny_model("mixtral", layers=1)
    compress_(model, Recipe.from_preset("sinq", targets=["re:.*down_proj.*"]))
    assert isinstance(model.model.layers[0].mlp.experts, SeparateExperts)
    out = save(model, tmp_path / "half")
    assert torch.equal(logits(load(out), ids), logits(model, ids))


def test_an_expert_without_tokens_is_pruned_by_magnitude_and_says_so():
    model = tiny_model("mixtral", layers=1)
    with torch.no_grad():
        model.model.layers[0].mlp.gate.weight[3] = 0  # logit 0; the others are pushed above it
        model.model.layers[0].post_attention_layernorm.weight.fill_(1.0)
        model.model.layers[0].mlp.gate.weight[:3] = 0
        model.model.layers[0].mlp.gate.weight[0] += 1e-3
    report = compress_(model, "sparsegpt", tokens(1, 2))
    notes = {x.fqn: x for x in report.linears if x.notes}
    unseen = [x for x in notes.values() if "no calibration token reached it" in x.notes[-1]]
    assert unseen and all("experts" in x.fqn and x.method == "magnitude" and x.tokens == 0 for x in unseen)
    assert all(x.sparsity == 0.5 for x in report.linears)


@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_progressive_iterations_on_other_layouts(architecture, tmp_path):
    """The second iteration starts from a checkpoint whose layout was changed by the first; few tokens, so that some
    experts see none."""
    from tiny_text import tiny_text, tiny_tokenizer

    from prism_llm.pipeline.schedule import ScheduleRow
    from prism_llm.recovery import prune_iteration

    (tmp_path / "text.txt").write_text(tiny_text(20), "utf-8")
    tokenizer = tiny_tokenizer(tiny_text(20), 300)
    model = tiny_model(architecture, layers=2, vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    recipe = Recipe.from_preset(
        "three-tier", dataset=str(tmp_path / "text.txt"), num_calibration_samples=1, max_seq_length=2
    )
    first = prune_iteration(tmp_path / "dense", tmp_path / "1", ScheduleRow(1, 0.5, 0.5, 0.0), recipe)
    second = prune_iteration(None, tmp_path / "2", ScheduleRow(2, 0.4, 0.4, 0.2), recipe, previous=first)
    loaded = load(second)
    assert set(packed(loaded)) == LINEARS[architecture]
    assert bool(logits(loaded, tokens(1, 5)).isfinite().all())
    notes = [note for x in loaded.prism_checkpoint.report["linears"] for note in x["notes"]]
    assert (architecture == "gpt2") == (notes == [])  # experts without tokens are named


def test_heads_and_embeddings_are_listed():
    for tied in (True, False):
        model = tiny_model("llama", layers=1, tie_word_embeddings=tied)
        report = compress_(model, "sinq")
        assert report.left == {"lm_head": "ignored by 'lm_head'"}
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
        model = tiny_model("llama", layers=1)
        with pytest.raises(ValueError, match=r"got 'lm_head', which matches none; left: .*outside the decoder blocks"):
            compress_(
                tiny_model("llama", layers=1), Recipe.from_preset("sinq", targets=["q_proj", "lm_head"], ignore=[])
            )


def test_other_experts_are_refused_or_listed():
    """Transposed weights with biases: gpt-oss."""
    from transformers import AutoModelForCausalLM, GptOssConfig

    config = GptOssConfig(
        vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=8, num_experts_per_tok=2, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match=r"must hold most of .*experts"):
        compress_(model, "sinq")
    report = compress_(model, Recipe.from_preset("sinq", targets=["q_proj", "o_proj"]))
    assert "3-D parameter" in report.left["model.layers.0.mlp.experts.down_proj"]


def test_compress_copies_models_of_other_layouts():
    model, ids = tiny_model("mixtral", layers=1), tokens()
    expected = logits(model, ids)
    result = compress(model, "wanda", calibration=ids)
    assert torch.equal(logits(model, ids), expected) and not packed(model) and packed(result.model)


@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_finetune_of_other_layouts(architecture, tmp_path):
    from tiny_text import tiny_text, tiny_tokenizer

    text = tmp_path / "text.txt"
    text.write_text(tiny_text(60), "utf-8")
    tokenizer = tiny_tokenizer(tiny_text(60), 300)
    model = tiny_model(architecture, layers=2, vocab_size=len(tokenizer))
    report = compress_(model, "wanda", tokens(8, 24))
    saved = save(model, tmp_path / "model", tokenizer, report=report)
    # So large a rate that the best weights are not the last: they have to come back from the Trainer's checkpoint.
    settings = Training(
        max_steps=4, batch_size=2, accumulation=1, seqlen=32, eval_steps=1, learning_rate=0.1, dataset=str(text)
    )
    out = finetune(saved, tmp_path / "out", settings)
    before, after = packed(load(saved)), packed(load(out))
    assert set(before) == set(after) == LINEARS[architecture]
    done = load(out).prism_checkpoint.report["finetune"][0]
    assert done["loss_after"] < done["loss_before"] and done["best_step"] > 0
    for name, module in before.items():
        assert bool((after[name].to_dense()[module.to_dense() == 0] == 0).all())


def test_no_linear_is_hidden_in_ordinary_models():
    model = tiny_model("llama", layers=1)
    modules = dict(model.named_modules())
    assert expose_linears(model).names == [] and dict(model.named_modules()) == modules
    assert isinstance(model.lm_head, nn.Linear)
