"""Everything that is not a whole checkpoint of one run is refused, with the file or tensor, the rule and the value."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prism_llm.checkpoint import CheckpointError, load, verify


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
    "packed shape": (lambda f: edit_tensors(f, cut(f"{Q}.bitmap", 3)), f"module {Q}: "),
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
