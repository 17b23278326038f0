"""Checkpoints compressed block by block: the same tensors as in memory, in a fraction of the memory."""

import hashlib
import json
import subprocess
import sys
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, OTHER_LAYOUTS, VOCABULARY, tiny_config, tiny_model, tokens

from prism_llm import Recipe, compress
from prism_llm.checkpoint import compress_to_checkpoint, load
from prism_llm.models.skeleton import build_skeleton
from prism_llm.models.stored_tensors import NotStreamable
from prism_llm.models.streamed import StreamedModel
from prism_llm.pipeline import PRESETS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = tiny_model("llama", dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder, model


def same_tensors(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def streams(report):
    return not any("not block by block" in note for note in report.notes)


@pytest.mark.parametrize("architecture", (*ARCHITECTURES, *OTHER_LAYOUTS))
def test_streaming_equals_memory_bitwise(tmp_path, architecture):
    model = tiny_model(architecture, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    ids, rng = tokens(4, 24), torch.get_rng_state()
    streamed = compress(tmp_path, "prism", calibration=ids)
    assert torch.equal(rng, torch.get_rng_state())
    expected = compress(model, "prism", calibration=ids).model
    assert type(streamed.model) is type(model) and not streamed.model.training
    assert same_tensors(streamed.model, expected) and streams(streamed.report)
    with torch.no_grad():
        assert torch.equal(streamed.model(ids).logits, expected(ids).logits)


class Silent:
    def save_pretrained(self, folder):
        """Nothing to store."""


def digests(folder):
    """Of every file but the report, which has times, and the manifest, which has its sum."""
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    assert files.keys() >= {"report.json", "MANIFEST.json", "config.json"}, files.keys()
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name not in ("report.json", "MANIFEST.json")
    }


@pytest.mark.parametrize(
    "fields", [{"method": "magnitude"}, {"method": "wanda", "pattern": "2:4"}, {"method": "prism"}]
)
@pytest.mark.parametrize("architecture", OTHER_LAYOUTS)
def test_other_layouts_give_the_checkpoint_that_memory_gives(tmp_path, architecture, fields, monkeypatch):
    tiny_model(architecture, dtype=torch.bfloat16).save_pretrained(tmp_path / "dense", max_shard_size="60KB")
    ids, given = tokens(4, 24), {"tokenizer": Silent(), "shard_bytes": 50_000}
    loaded, held = {}, []
    load_block = StreamedModel.load

    def watched_load(self, index):
        load_block(self, index)
        linears = [m for m in self._adapter.blocks[index].modules() if isinstance(m, torch.nn.Linear)]
        loaded[index] = [weakref.ref(linear.weight) for linear in linears]

    def watch(done, total, prefix):
        held.append({index for index, weights in loaded.items() if any(w() is not None for w in weights)})

    monkeypatch.setattr(StreamedModel, "load", watched_load)
    dense, out = tmp_path / "dense", tmp_path / "streamed"
    streamed = compress_to_checkpoint(dense, out, fields, calibration=ids, progress=watch, **given)
    assert len(loaded[0]) >= 4 and held == [set(), set(), set()]  # the dense weights of a block go with it

    def refuse(self, *arguments, **options):
        raise NotStreamable("for the test")

    monkeypatch.setattr(StreamedModel, "__init__", refuse)
    whole = compress_to_checkpoint(dense, tmp_path / "whole", fields, calibration=ids, **given)
    assert digests(streamed) == digests(whole)
    model, other = load(streamed), load(whole)
    assert "for the test" in str(other.prism_checkpoint.report["notes"])
    assert "for the test" not in str(model.prism_checkpoint.report["notes"])
    continued = model.generate(ids[:1], max_new_tokens=4, do_sample=False)
    assert continued.shape == (1, 28) and torch.equal(
        continued, other.generate(ids[:1], max_new_tokens=4, do_sample=False)
    )


RECIPES = [
    Recipe.from_preset("wanda", ratios="owl", owl_threshold=3.0),
    Recipe.from_preset("magnitude", scope="global"),
    Recipe.from_preset("wanda", pattern="2:4", permute="heuristic", targets=["re:.*(down_proj|c_proj).*"]),
    Recipe.from_preset("sinq", fold=True, targets=["re:.*(up_proj|o_proj|c_attn).*"]),
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("architecture", ["gpt2", "mixtral"])
def test_other_layouts_under_recipes_that_read_blocks_twice_or_leave_some(tmp_path, architecture, recipe):
    model = tiny_model(architecture, layers=2)
    model.save_pretrained(tmp_path)
    ids = tokens(4, 24)
    streamed = compress(tmp_path, recipe, calibration=ids)
    expected = compress(model, recipe, calibration=ids)
    assert same_tensors(streamed.model, expected.model) and streams(streamed.report)
    assert [x.fqn for x in streamed.report.linears] == [x.fqn for x in expected.report.linears]
    assert streamed.report.left == expected.report.left


@pytest.mark.parametrize("names", ["the model's", "without prefix"])
def test_experts_may_be_stored_fused_and_names_without_prefix(tmp_path, names):
    model = tiny_model("mixtral", layers=1)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if names == "without prefix":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    model.config.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    streamed = compress(tmp_path, "sinq")
    assert same_tensors(streamed.model, compress(model, "sinq").model) and streams(streamed.report)


def test_an_expert_that_is_not_stored_is_named(tmp_path):
    model = tiny_model("mixtral", layers=1)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.block_sparse_moe.experts.2.w2.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotStreamable, match=r"experts\.down_proj must have shape \[4, 64, 96\], got \[3, 64, 96\]"):
        StreamedModel(str(tmp_path))
    del tensors["model.layers.0.block_sparse_moe.experts.2.w1.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotStreamable, match=r"experts\.gate_up_proj cannot be made of .*experts\.0\.w1\.weight"):
        StreamedModel(str(tmp_path))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_a_model_keeps_in_float32_stays_so(tmp_path, dtype):
    """Glm4Moe keeps the correction of its router in float32, whatever the rest is in."""
    from transformers import AutoModelForCausalLM, Glm4MoeConfig

    config = Glm4MoeConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, n_routed_experts=4, num_experts_per_tok=2,
        n_shared_experts=1, first_k_dense_replace=1, max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    ids = tokens(4, 24)
    streamed = compress(tmp_path, "wanda", calibration=ids, dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert same_tensors(streamed.model, compress(model, "wanda", calibration=ids).model) and streams(streamed.report)
    assert streamed.model.model.layers[1].mlp.gate.e_score_correction_bias.dtype == torch.float32


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
    assert all(tensor.is_meta for tensor in result.model.state_dict().values())


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
