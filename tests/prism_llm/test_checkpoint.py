"""Checkpoints: exact round trips, atomic writes, and refusal of everything that is not whole."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tokens

from prism_kernels.nn import BitmapDualShiftLinear, BitmapLinear, DualShiftLinear
from prism_llm.checkpoint import (
    CheckpointError,
    CheckpointWriter,
    OutputError,
    is_checkpoint,
    load,
    open_checkpoint,
    save,
    verify,
)

MODULES = {
    "dual_shift": (DualShiftLinear, {"bits": 4, "group_size": 16}, False),
    "dual_shift_nf4": (DualShiftLinear, {"bits": 4, "group_size": 24, "codebook": "nf4"}, False),
    "bitmap": (BitmapLinear, {}, True),
    "bitmap_dual_shift": (BitmapDualShiftLinear, {"bits": 3, "group_size": 16}, True),
}
ARCHITECTURES = ("llama", "opt", "qwen2", "qwen3", "gemma", "mistral")
RECIPE = {"method": "test", "sparsity": 0.5, "bits": 4, "targets": ["Linear"], "nested": {"a": 1}}


def pack_linears(model: torch.nn.Module, kind: str) -> torch.nn.Module:
    """Replaces every linear but the head."""
    module, options, sparse = MODULES[kind]
    generator = torch.Generator().manual_seed(7)
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            mask = torch.rand(linear.weight.shape, generator=generator) < 0.5 if sparse else None
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.from_linear(linear, mask, **options))
    return model


def make(kind: str = "bitmap_dual_shift", architecture: str = "llama", **options) -> torch.nn.Module:
    return pack_linears(tiny_model(architecture, layers=2, **options), kind)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens(2, 12)).logits


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("original") / "model"
    return save(make(), out, recipe=RECIPE, report={"seconds": 1.0, "error": float("nan")})


@pytest.fixture
def stored(original, tmp_path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(original, tmp_path / "model"))


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


# --- refusal -------------------------------------------------------------------------------------------------------


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    fix_manifest(path.parent)


def fix_manifest(folder: Path) -> None:
    """Makes sizes fit again, so that the check behind the manifest is reached."""
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        if (folder / name).exists():
            entry["bytes"] = (folder / name).stat().st_size
    path.write_text(json.dumps(manifest))


def edit_tensors(folder: Path, change, metadata=None) -> None:
    shard = next(folder.glob("compressed-*.safetensors"))
    with safe_open(shard, framework="pt") as opened:
        metadata = metadata or opened.metadata()
    tensors = {name: tensor.clone() for name, tensor in load_file(shard).items()}
    change(tensors)
    save_file(tensors, shard, metadata=metadata)
    index = folder / "compressed.safetensors.index.json"
    edit_json(index, lambda value: value.update(weight_map=dict.fromkeys(tensors, shard.name)))


Q = "model.layers.0.self_attn.q_proj"


def cut(key, rows):
    return lambda tensors: tensors.update({key: tensors[key][:rows].contiguous()})


def modules(change):
    return lambda folder: edit_json(folder / "config.json", lambda v: change(v["quantization_config"]["modules"]))


REFUSED = {
    "no directory": (lambda f: os.rename(f, f.with_name("moved")), "checkpoint: must be an existing directory"),
    "config": (lambda f: (f / "config.json").unlink(), "config.json: must exist"),
    "index": (lambda f: (f / "compressed.safetensors.index.json").unlink(), "index.json: must exist"),
    "manifest": (lambda f: (f / "MANIFEST.json").unlink(), "MANIFEST.json: must exist"),
    "shard": (
        lambda f: next(f.glob("compressed-*.safetensors")).unlink(),
        "compressed-00001-of-00001.safetensors: must exist",
    ),
    "broken json": (
        lambda f: ((f / "config.json").write_text("{"), fix_manifest(f)),
        "config.json: must be readable JSON",
    ),
    "json list": (
        lambda f: ((f / "config.json").write_text("[]"), fix_manifest(f)),
        "config.json: must hold a JSON object",
    ),
    "deep json": (lambda f: ((f / "config.json").write_text("[" * 200_000), fix_manifest(f)), "must be readable JSON"),
    "truncated shard": (
        lambda f: [p.write_bytes(p.read_bytes()[:-9]) for p in f.glob("*.safetensors")],
        "compressed-00001-of-00001.safetensors: must have",
    ),
    "truncated shard, manifest too": (
        lambda f: ([p.write_bytes(p.read_bytes()[:-9]) for p in f.glob("*.safetensors")], fix_manifest(f)),
        "must be a valid safetensors file",
    ),
    "not prism": (
        lambda f: edit_json(f / "config.json", lambda v: v["quantization_config"].update(quant_method="gptq")),
        "quant_method must be 'prism', got 'gptq'",
    ),
    "newer version": (
        lambda f: edit_json(f / "config.json", lambda v: v["quantization_config"].update(format_version=2)),
        "format_version must be at most 1",
    ),
    "version is text": (
        lambda f: edit_json(f / "config.json", lambda v: v["quantization_config"].update(format_version="1")),
        "format_version must be a positive integer",
    ),
    "unknown format": (modules(lambda m: m[Q].update(format="os.system")), f"module {Q}: format must be one of"),
    "unhashable format": (modules(lambda m: m[Q].update(format=["a"])), f"module {Q}: format must be one of"),
    "bad shape": (modules(lambda m: m[Q].update(shape=[64, -1])), f"module {Q}: shape must be two positive integers"),
    "other shape": (modules(lambda m: m[Q].update(shape=[32, 64])), f"module {Q}: shape must be [64, 64]"),
    "bad bits": (modules(lambda m: m[Q].update(bits=7)), f"module {Q}: "),
    "missing option": (modules(lambda m: m[Q].pop("bits")), f"module {Q}: "),
    "no such module": (modules(lambda m: m.update(nobody=m[Q])), "module nobody: must name a linear layer"),
    "not a linear": (modules(lambda m: m.update({"model.norm": m[Q]})), "module model.norm: must name a linear layer"),
    "module left out": (modules(lambda m: m.pop(Q)), f"tensor {Q}.weight: must be stored"),
    "tied head": (
        lambda f: edit_json(f / "config.json", lambda v: v["quantization_config"]["modules"].update(lm_head=1)),
        "module lm_head: format must be one of",
    ),
    "unknown model": (
        lambda f: edit_json(f / "config.json", lambda v: v.update(model_type="nonesuch")),
        "config.json: must describe a causal language model",
    ),
    "other model": (
        lambda f: edit_json(f / "config.json", lambda v: v.update(intermediate_size=64)),
        "shape must be",
    ),
    "more layers": (
        lambda f: edit_json(f / "config.json", lambda v: v.update(num_hidden_layers=3, layer_types=None)),
        "must be stored for this model",
    ),
    "missing tensor": (
        lambda f: edit_tensors(f, lambda t: t.pop("model.norm.weight")),
        "tensor model.norm.weight: must be stored",
    ),
    "missing packed tensor": (lambda f: edit_tensors(f, lambda t: t.pop(f"{Q}.scale")), f"module {Q}: "),
    "extra tensor": (
        lambda f: edit_tensors(f, lambda t: t.update(surprise=torch.ones(1))),
        "tensor surprise: has no place",
    ),
    "extra packed tensor": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{Q}.surprise": torch.ones(1)})),
        "surprise",
    ),
    "dense shape": (
        lambda f: edit_tensors(f, cut("model.norm.weight", 5)),
        "tensor model.norm.weight: shape must be [64]",
    ),
    "packed shape": (lambda f: edit_tensors(f, cut(f"{Q}.bitmap", 5)), f"module {Q}: "),
    "packed dtype": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{Q}.scale": t[f"{Q}.scale"].float()})),
        f"module {Q}: ",
    ),
    "integer weight": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int32)})),
        "tensor model.norm.weight: dtype",
    ),
    "infinite scale": (lambda f: edit_tensors(f, lambda t: t[f"{Q}.scale"].fill_(float("inf"))), f"module {Q}: "),
    "index names a stranger": (
        lambda f: edit_json(
            f / "compressed.safetensors.index.json",
            lambda v: v["weight_map"].update(surprise="compressed-00001-of-00001.safetensors"),
        ),
        "must hold the tensor surprise",
    ),
    "index forgets one": (
        lambda f: edit_json(
            f / "compressed.safetensors.index.json", lambda v: v["weight_map"].pop("model.norm.weight")
        ),
        "holds the tensor model.norm.weight, which",
    ),
    "path out of the directory": (
        lambda f: edit_json(
            f / "compressed.safetensors.index.json",
            lambda v: v["weight_map"].update({"model.norm.weight": "../compressed-00001-of-00001.safetensors"}),
        ),
        "must lie in a file",
    ),
    "absolute path in the manifest": (
        lambda f: edit_json(f / "MANIFEST.json", lambda v: v["files"].update({"/etc/passwd": {"bytes": 1}})),
        "file names must stay in the directory, got '/etc/passwd'",
    ),
    "dots in the manifest": (
        lambda f: edit_json(f / "MANIFEST.json", lambda v: v["files"].update({"a/../../b": {"bytes": 1}})),
        "file names must stay in the directory",
    ),
    "shard of another run": (
        lambda f: edit_tensors(f, lambda t: None, metadata={"run_id": "another"}),
        "compressed-00001-of-00001.safetensors: run id must be",
    ),
    "shard without a run": (
        lambda f: edit_tensors(f, lambda t: None, metadata={"format": "pt"}),
        "run id must be",
    ),
    "recipe": (
        lambda f: ((f / "recipe.yaml").write_text("a: [1"), fix_manifest(f)),
        "recipe.yaml: must be readable YAML",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, stored):
    spoil, message = REFUSED[case]
    spoil(stored)
    with pytest.raises(CheckpointError) as refusal:
        load(stored)
    assert message in str(refusal.value)


def test_verify_finds_one_changed_bit(stored):
    shard = next(stored.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="sha256 must be"):
        verify(stored)


# --- writing -------------------------------------------------------------------------------------------------------


def test_existing_outputs(tmp_path):
    model = make()
    out = save(model, tmp_path / "out")
    before = digests(out)
    with pytest.raises(OutputError, match="output: must not exist"):
        save(model, out)
    assert digests(out) == before
    other = make("dual_shift")
    save(other, out, overwrite=True)
    assert torch.equal(logits(load(out)), logits(other))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"only a checkpoint is overwritten"):
        save(model, precious, overwrite=True)
    (tmp_path / "empty").mkdir()
    save(model, tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "out", "precious"]


def test_swap_without_exchange(tmp_path, monkeypatch):
    from prism_llm.checkpoint import staging

    monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    out = save(make(), tmp_path / "out")
    save(make("dual_shift"), out, overwrite=True)
    assert {m["format"] for m in open_checkpoint(out).modules.values()} == {"dual_shift"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_writer_leaves_nothing(tmp_path, error):
    for overwrite in (False, True):
        out = tmp_path / "out"
        before = digests(save(make(), out)) if overwrite else None
        with pytest.raises(error), CheckpointWriter(out, overwrite=overwrite, shard_bytes=100) as writer:
            writer.add_tensors({"a": torch.ones(100), "b": torch.ones(100)})
            assert any(writer.directory.iterdir())
            raise error
        assert [p.name for p in tmp_path.iterdir()] == (["out"] if overwrite else [])
        assert not overwrite or digests(out) == before


KILLED = """
import sys, time, torch
from prism_llm.checkpoint import CheckpointWriter
with CheckpointWriter(sys.argv[1], overwrite=True, shard_bytes=100) as writer:
    writer.add_tensors({str(i): torch.ones(100) for i in range(3)})
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_run_cleans_up(tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "writing\n"
    beside = tmp_path / f"out.tmp-{child.pid}"
    assert beside.is_dir() and not out.exists()
    with CheckpointWriter(out) as writer:  # a living writer's folder is not touched
        assert beside.is_dir()
        writer.add_tensors({})
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists() and beside.is_dir()
    (tmp_path / "out.tmp-notapid").mkdir()
    save(make(), out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.tmp-notapid"]


def test_a_death_between_two_renames_is_mended(tmp_path):
    out = save(make(), tmp_path / "out")
    before = digests(out)
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    os.rename(out, tmp_path / f"out.bak-{process.stdout.strip()}")
    with pytest.raises(RuntimeError), CheckpointWriter(out, overwrite=True):
        raise RuntimeError
    assert digests(out) == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_writer_arguments(tmp_path):
    with CheckpointWriter(tmp_path / "out") as writer:
        writer.add_tensors({"a": torch.ones(2)})
        with pytest.raises(CheckpointError, match="tensor a: must be added once"):
            writer.add_tensors({"a": torch.ones(2)})
        with pytest.raises(CheckpointError, match="tensor b: must hold data"):
            writer.add_tensors({"b": torch.ones(2, device="meta")})
        with pytest.raises(OutputError, match="one writer at a time"), CheckpointWriter(tmp_path / "out"):
            pass
    with pytest.raises(ValueError, match="shard_bytes must be at least 1, got 0"):
        CheckpointWriter(tmp_path / "x", shard_bytes=0)
    assert not list(tmp_path.iterdir())


def test_views_and_shared_tensors_are_stored_as_their_own(tmp_path):
    base = torch.arange(12.0)
    out = tmp_path / "out"
    with CheckpointWriter(out) as writer:
        writer.add_tensors({"whole": base, "again": base, "view": base.view(3, 4)[:, 1], "empty": torch.empty(0)})
        writer.finish(config={"model_type": "llama"})
    stored = load_file(out / "compressed-00001-of-00001.safetensors")
    assert torch.equal(stored["whole"], base) and torch.equal(stored["again"], base)
    assert torch.equal(stored["view"], base.view(3, 4)[:, 1]) and stored["empty"].numel() == 0


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
