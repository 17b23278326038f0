"""The same recipe, seed and data give the same tensors in fresh processes, and the user's global state stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = r"""
import hashlib, json, random, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
folder = Path(sys.argv[2])
import numpy, torch
from tiny_models import tiny_model, tokens
from tiny_text import tiny_text, tiny_tokenizer

import prism_llm
from prism_llm.checkpoint import load, save
from prism_llm.pipeline import PRESETS
from prism_llm.pipeline.api import draw_calibration
from prism_llm.pipeline.recipe import Recipe
from prism_llm.recovery import Training, finetune

torch.set_num_threads(2)
torch.set_num_interop_threads(3)


def state():
    return (
        random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),
        torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_device(),
        torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled,
    )


def digests(model):
    digest = {}
    for name, tensor in model.state_dict().items():
        content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        digest[name] = hashlib.sha256(content).hexdigest()
    return digest


text = tiny_text(80)
(folder / "text.txt").write_text(text, "utf-8")
tokenizer = tiny_tokenizer(text, 300)
random.seed(int(sys.argv[3])), numpy.random.seed(int(sys.argv[3])), torch.manual_seed(int(sys.argv[3]))
before, found = state(), {}
for preset in PRESETS:
    for architecture, dtype in (("llama", torch.bfloat16), ("mixtral", torch.float32)):
        recipe = Recipe.from_preset(
            preset, dataset=str(folder / "text.txt"), num_calibration_samples=4, max_seq_length=24, seed=3
        )
        model = tiny_model(architecture, layers=1, dtype=dtype, vocab_size=len(tokenizer))
        calibration = draw_calibration(model, recipe, tokenizer, None, [])
        prism_llm.compress_(model, recipe, calibration if recipe.needs_calibration else None)
        found[f"{preset} {architecture}"] = digests(model)
        if preset == "three-tier" and architecture == "llama":
            saved = save(model, folder / "pruned", tokenizer)
settings = Training(
    max_steps=2, batch_size=2, accumulation=1, seqlen=24, eval_steps=1, learning_rate=1e-3,
    dataset=str(folder / "text.txt"), seed=3,
)
out = finetune(saved, folder / "trained", settings)
changed = [i for i, (a, b) in enumerate(zip(before, state())) if a != b]
assert not changed, f"global state {changed} changed"
found["finetune"] = digests(load(out))
files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in saved.iterdir()}
print("RESULT" + json.dumps({"tensors": found, "files": files}))
"""


def start(folder: Path, seed: int) -> subprocess.Popen:
    folder.mkdir()
    # What a process must not depend on: the order of sets, and where the user's generators stand.
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    arguments = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(seed)]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen) -> dict:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.split("RESULT")[1])


def test_two_fresh_processes_give_the_same_bytes(tmp_path):
    processes = [start(tmp_path / "a", 1), start(tmp_path / "b", 2)]
    first, second = map(result, processes)
    from prism_llm.pipeline import PRESETS

    assert len(first["tensors"]) == 2 * len(PRESETS) + 1
    assert all(len(tensors) > 10 for tensors in first["tensors"].values())
    assert first["tensors"] == second["tensors"]
    # Of a checkpoint every file is the same too.
    assert first["files"] == second["files"] and "MANIFEST.json" in first["files"]
