"""Checkpoints compressed block by block: the same tensors as in memory, in a fraction of the memory."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import ARCHITECTURES, tiny_config, tiny_model, tokens

from prism_llm import compress
from prism_llm.models.skeleton import build_skeleton
from prism_llm.models.streamed import NotStreamable, StreamedModel
from prism_llm.pipeline import PRESETS

RENAMED = {"gpt_neox"}  # transformers renames tensors of such checkpoints while loading


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = tiny_model("llama", dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder, model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_streaming_equals_memory_bitwise(tmp_path, architecture):
    model = tiny_model(architecture, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    ids, rng = tokens(4, 24), torch.get_rng_state()
    streamed = compress(tmp_path, "prism", calibration=ids)
    assert torch.equal(rng, torch.get_rng_state())
    expected = compress(model, "prism", calibration=ids).model
    assert type(streamed.model) is type(model) and not streamed.model.training
    left, right = streamed.model.state_dict(), expected.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    with torch.no_grad():
        assert torch.equal(streamed.model(ids).logits, expected(ids).logits)
    whole = [note for note in streamed.report.notes if "not block by block" in note]
    assert bool(whole) == (architecture in RENAMED), whole


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox"])
@pytest.mark.parametrize("preset", ["sinq", "wanda"])
def test_callbacks_get_every_tensor_once(tmp_path, architecture, preset):
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    got, names = {}, []

    def take(tensors):
        names.extend(tensors)
        got.update({name: tensor.clone() for name, tensor in tensors.items()})

    def on_block(index, prefix, modules):
        for fqn, module in modules.items():
            take({f"{fqn}.{key}": value for key, value in module.state_dict().items()})

    ids = tokens(4, 24)
    result = compress(tmp_path, preset, calibration=ids, on_block=on_block, on_tensors=take, keep_blocks=False)
    assert len(names) == len(set(names))
    expected = compress(model, preset, calibration=ids).model.state_dict()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert got.keys() == expected.keys() - tied
    assert all(torch.equal(got[name], expected[name]) for name in got)
    whole = architecture in RENAMED  # loaded as a whole: only its blocks go
    assert all(t.is_meta for name, t in result.model.state_dict().items() if not whole or ".layers." in name)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("sinq", {"fold": True}),
        ("wanda", {"ratios": "owl"}),
        ("wanda", {"pattern": "2:4", "permute": "lsa"}),
        ("magnitude", {"scope": "global"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_recipes_that_run_the_model_more_than_once(tmp_path, tied, preset, changes):
    model = tiny_model("llama", tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    got, ids = {}, tokens(4, 24)

    def take(tensors):
        got.update({name: tensor.clone() for name, tensor in tensors.items()})

    def on_block(index, prefix, modules):
        for fqn, module in modules.items():
            take({f"{fqn}.{key}": value for key, value in module.state_dict().items()})

    given = {} if preset in ("sinq", "magnitude") else {"calibration": ids}
    result = compress(tmp_path, preset, on_block=on_block, on_tensors=take, keep_blocks=False, **given, **changes)
    expected = compress(model, preset, **given, **changes).model.state_dict()
    assert got.keys() == expected.keys() - ({"lm_head.weight"} if tied else set())
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert all(tensor.is_meta for tensor in result.model.state_dict().values())
    ends = (result.model.get_input_embeddings().weight, result.model.get_output_embeddings().weight)
    assert (ends[0] is ends[1]) == tied


def test_dtype_and_generation_config_follow(checkpoint, tmp_path):
    folder, model = checkpoint
    assert compress(folder, "sinq").model.dtype == torch.bfloat16
    assert compress(folder, "sinq", dtype=torch.float32).model.model.norm.weight.dtype == torch.float32
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"max_new_tokens": 17}))
    assert compress(tmp_path, "sinq").model.generation_config.max_new_tokens == 17


def test_what_cannot_be_streamed_says_why(tmp_path, checkpoint):
    folder, _ = checkpoint
    with pytest.raises(NotStreamable, match=r"neither model\.safetensors nor"):
        StreamedModel(str(tmp_path))
    for change, message in (
        ({"hidden_size": 128}, r"model\.embed_tokens\.weight must have shape \[256, 128\], got \[256, 64\]"),
        ({"num_hidden_layers": 4}, r"the checkpoint has no tensor model\.layers\.3\.self_attn\.q_proj\.weight"),
        ({"quantization_config": {"quant_method": "prism"}}, "quantized already"),
    ):
        other = tmp_path / next(iter(change))
        other.mkdir()
        for file in folder.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text()) | change
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(NotStreamable, match=message):
            StreamedModel(str(other))


def test_arguments_that_would_lose_everything(checkpoint):
    folder, model = checkpoint
    with pytest.raises(ValueError, match="keep_blocks=False must come with a checkpoint and on_block"):
        compress(folder, "sinq", keep_blocks=False)
    with pytest.raises(ValueError, match="keep_blocks=False must come with a checkpoint and on_block"):
        compress(model, "sinq", keep_blocks=False, on_block=print)
    with pytest.raises(ValueError, match="on_tensors must come with keep_blocks=False"):
        compress(folder, "sinq", on_tensors=print)
    with pytest.raises(ValueError, match="tokenizer must be given to draw calibration for a model in memory, got None"):
        compress(model, "wanda")
    with pytest.raises(FileNotFoundError, match="no such folder, and the download"):
        compress(str(folder / "nowhere"), "sinq")
    with pytest.raises(FileNotFoundError, match="must hold a complete model folder"):
        compress(folder, "wanda")  # calibration must be drawn, and the folder has no tokenizer


LAYERS = 40
MEASURE = """
import resource, sys, torch
import prism_llm, transformers.models.llama.modeling_llama

torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
prism_llm.compress_, torch.linalg.cholesky(torch.eye(64))
before = peak()
ids = torch.arange(64)[None]
count = []
prism_llm.compress(sys.argv[1], "wanda", pattern="2:4", calibration=ids, keep_blocks=False,
                   on_block=lambda i, p, m: count.append(len(m)), on_tensors=lambda t: None)
assert count == [7] * int(sys.argv[2]), count
print(peak() - before)
"""


def save_wide_checkpoint(folder, layers):
    """About 3.4 MB a block in float32; returns the bytes. All blocks have the same random tensors, made once."""
    config = tiny_config("llama", hidden=256, inner=1024, layers=layers)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    generator, made, tensors = torch.Generator().manual_seed(0), {}, {}
    for name, place in build_skeleton(config, torch.float32).state_dict().items():
        if place.shape not in made:
            made[place.shape] = torch.randn(place.shape, generator=generator) * 0.02
        tensors[name] = made[place.shape].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def test_memory_stays_far_below_the_dense_model(tmp_path):
    dense = save_wide_checkpoint(tmp_path, LAYERS)
    measure = [sys.executable, "-c", MEASURE, str(tmp_path), str(LAYERS)]
    used = int(subprocess.run(measure, check=True, capture_output=True, text=True).stdout)
    assert dense > 130e6
    assert used < dense / 2, f"{used / 1e6:.0f} MB for a model of {dense / 1e6:.0f} MB"


def test_every_preset_streams(checkpoint):
    folder, _ = checkpoint
    for preset in PRESETS:
        assert compress(folder, preset, calibration=tokens(2, 16)).report.linears
