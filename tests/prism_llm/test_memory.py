"""Peak memory of compressing a checkpoint: two blocks and the activations, measured in a process of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

MEASURE = """
import json, sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from prism_llm.checkpoint import compress_to_checkpoint

torch.set_num_threads(1)


class Silent:
    def save_pretrained(self, folder): pass


def make(folder, hidden, inner, layers, vocabulary):
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=inner, num_attention_heads=8,
        num_key_value_heads=2, vocab_size=vocabulary, max_position_embeddings=256, tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return 2 * sum(parameter.numel() for parameter in model.model.layers[0].parameters())


def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def run(folder, preset, samples):
    ids = torch.randint(256, (samples, 128), generator=torch.Generator().manual_seed(0))
    calibration = None if preset == "sinq" else ids
    compress_to_checkpoint(folder, f"{folder}-{preset}", preset, calibration=calibration, tokenizer=Silent())


if sys.argv[1] == "make":
    make(sys.argv[2] + "/small", 64, 96, 2, 256)
    print(make(sys.argv[2] + "/large", 1536, 4096, 3, 8192))
else:
    run(sys.argv[2] + "/small", sys.argv[1], 2)  # loads every library, which is not what is measured
    if sys.argv[1] == "ls-prism":
        torch.linalg.svd(torch.randn(1536, 1536))  # neither are the buffers that LAPACK's library keeps
    from prism_llm.memory import return_free_memory

    return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    begun = status("VmRSS:")
    run(sys.argv[2] + "/large", sys.argv[1], int(sys.argv[3]))
    print(status("VmHWM:") - begun)
"""

#: For the allocator and for what the libraries keep.
NOISE = 12_000_000


def child(*arguments):
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return folder, child("make", str(folder))


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("preset", "samples"),
    [
        *(("sinq", 0), ("wanda", 16)),
        *(slow(preset, 16) for preset in ("ria", "clearcut", "ls-prism", "three-tier")),
        *(slow(preset, 64) for preset in ("prism", "sparsegpt")),
    ],
)
def test_peak_is_two_blocks_and_the_activations(checkpoints, preset, samples):
    folder, block = checkpoints
    most = 2 * block + 2 * samples * 128 * 1536 * 2
    peak = child(preset, str(folder), str(samples))
    assert block < peak <= most + NOISE
