"""Checkpoints: exact round trips, and what lies in the directory."""

import json
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from checkpoints import ARCHITECTURES, MODULES, MORE_MODULES, RECIPE, digests, logits, make
from safetensors import safe_open
from tiny_models import tokens
from tiny_text import tiny_folder

from prism_kernels.nn import DualShiftLinear
from prism_llm.checkpoint import (
    compress_to_checkpoint,
    is_checkpoint,
    load,
    load_tokenizer,
    open_checkpoint,
    save,
    verify,
)
from prism_llm.models import load_model
from prism_llm.pipeline import Recipe, compress_


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_round_trip_is_exact(architecture, tmp_path):
    for number, kind in enumerate(MODULES):
        tied, dtype = number % 2 == 0, torch.float32 if number < 2 else torch.bfloat16
        model = make(kind, architecture, dtype=dtype, tie_word_embeddings=tied)
        first = tmp_path / kind
        loaded = load(save(model, first, recipe=RECIPE))
        assert torch.equal(logits(model), logits(loaded)), kind
        assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
        shared = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
        assert shared == tied and loaded.config.tie_word_embeddings == tied
        again = save(loaded, tmp_path / "again", overwrite=True)
        assert digests(first) == digests(again), kind


@pytest.mark.parametrize("kind", MORE_MODULES)
def test_round_trip_of_every_other_format(kind, tmp_path):
    model = make(kind)
    loaded = load(save(model, tmp_path / "first", recipe=RECIPE))
    assert torch.equal(logits(model), logits(loaded))
    assert type(loaded.model.layers[0].mlp.up_proj) is type(model.model.layers[0].mlp.up_proj)
    assert digests(tmp_path / "first") == digests(save(loaded, tmp_path / "again"))


def test_second_generation_with_small_shards(tmp_path):
    model = make()
    first = save(model, tmp_path / "first", recipe=RECIPE, shard_bytes=20_000)
    shards = sorted(first.glob("compressed-*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"compressed-00001-of-{len(shards):05d}.safetensors"
    loaded = load(first)
    assert torch.equal(logits(model), logits(loaded))
    assert digests(first) == digests(save(loaded, tmp_path / "second", shard_bytes=20_000))
    run_ids = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as opened:
            run_ids.add(opened.metadata()["run_id"])
    assert run_ids == {open_checkpoint(first).run_id}


def test_content_of_the_directory(stored):
    names = {path.name for path in stored.iterdir()}
    assert names == {
        "MANIFEST.json",
        "README.md",
        "compressed-00001-of-00001.safetensors",
        "compressed.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "recipe.yaml",
        "report.json",
    }
    config = json.loads((stored / "config.json").read_text())
    quantization = config["quantization_config"]
    assert quantization["quant_method"] == "prism" and quantization["format_version"] == 1
    assert quantization["recipe"] == {"method": "test", "sparsity": 0.5, "bits": 4}
    assert quantization["modules"]["model.layers.0.self_attn.q_proj"] == {
        "format": "bitmap_dual_shift",
        "shape": [64, 64],
        "bits": 3,
        "group_size": 16,
        "codebook": "uniform",
    }
    checkpoint = verify(stored)
    assert checkpoint.recipe == RECIPE and checkpoint.report == {"seconds": 1.0, "error": None}
    assert "prism_llm.load" in (stored / "README.md").read_text()
    assert is_checkpoint(stored) and not is_checkpoint(stored.parent)
    module = load(stored).get_submodule("model.layers.0.self_attn.q_proj")
    assert checkpoint.module_nbytes("model.layers.0.self_attn.q_proj") == module.nbytes
    assert checkpoint.compressed_nbytes == sum(m.nbytes for m in load(stored).modules() if hasattr(m, "nbytes"))


def test_transformers_alone_fails_closed(stored):
    from transformers import AutoModelForCausalLM

    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(stored)


def test_dtype_casts_activations_but_no_packed_tensor_and_no_rotary_frequency(tmp_path):
    model = make(dtype=torch.float32)
    loaded = load(save(model, tmp_path / "out"), dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16 and logits(loaded).dtype == torch.bfloat16
    rotary, expected = loaded.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq
    assert rotary.dtype == torch.float32 and torch.equal(rotary, expected)
    before = model.get_submodule("model.layers.0.mlp.up_proj").packed_weight().tensors()
    after = loaded.get_submodule("model.layers.0.mlp.up_proj").packed_weight().tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_head_that_is_packed_unties(tmp_path):
    model = make(tie_word_embeddings=True)
    model.lm_head = DualShiftLinear.from_linear(model.lm_head, bits=8, group_size=16)
    loaded = load(save(model, tmp_path / "out"))
    assert torch.equal(logits(model), logits(loaded))
    assert isinstance(loaded.lm_head, DualShiftLinear) and not loaded.config.tie_word_embeddings


def test_loaded_model_does_not_depend_on_its_files(stored):
    model = load(stored)
    expected = logits(model)
    for path in stored.glob("*.safetensors"):
        path.write_bytes(b"")
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("opt", False)])
def test_streaming_writes_what_saving_writes(architecture, tied, tmp_path):
    dense = tiny_folder(tmp_path / "dense", architecture=architecture, tie_word_embeddings=tied)
    model, tokenizer = load_model(dense)
    recipe = Recipe.from_preset("wanda", bits=4, group_size=16)
    calibration = tokens(4, 16)
    report = compress_(model, recipe, calibration)
    whole = save(model, tmp_path / "whole", tokenizer, recipe, report)
    streamed = compress_to_checkpoint(dense, tmp_path / "streamed", recipe, calibration=calibration)
    ours, theirs = digests(streamed), digests(whole)
    for name in ("report.json", "MANIFEST.json"):  # seconds
        del ours[name], theirs[name]
    assert ours == theirs
    loaded = load(streamed)
    assert torch.equal(logits(loaded), logits(model))
    assert load_tokenizer(streamed)("The sparse row")["input_ids"] == tokenizer("The sparse row")["input_ids"]


def test_import_is_lean():
    code = """
    import sys
    import prism_llm, prism_llm.checkpoint, prism_llm.evaluation, prism_llm.report, prism_llm.cli.main
    heavy = {"matplotlib", "datasets", "pandas", "scipy", "transformers", "jinja2"} & set(sys.modules)
    assert not heavy, heavy
    """
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert time.perf_counter() - start < 30
