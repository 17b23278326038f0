"""What the README claims of the bundled model: sizes that are real, and the order of the methods."""

import math

import pytest
import torch
import torch.nn.functional as F

from prism_kernels.nn import PackedLinear
from prism_kernels.swap import replace_module
from prism_llm import compress
from prism_llm.data.sources import calibration_batches, evaluation_windows, load_text
from prism_llm.models import load_model


@pytest.fixture(scope="module")
def bundled():
    model, tokenizer = load_model(None, torch.float32)
    calibration = calibration_batches(load_text("stdlib", "train"), tokenizer, 32, 512, 0)
    windows = evaluation_windows(load_text("stdlib", "test"), tokenizer, 512, max_windows=32)
    return model, calibration, windows


def perplexity(model, windows) -> float:
    with torch.inference_mode():
        logits = torch.cat([model(batch).logits[:, :-1] for batch in windows.split(8)])
        return math.exp(F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))


def compressed(bundled, method, **changes):
    model, calibration, windows = bundled
    result = compress(model, method, calibration=calibration, **changes)
    packed = {name: m for name, m in result.model.named_modules() if isinstance(m, PackedLinear)}
    weights = sum(m.in_features * m.out_features for m in packed.values())
    disk = 8 * sum(m.nbytes for m in packed.values()) / weights
    memory = 8 * sum(m.resident_nbytes for m in packed.values()) / weights
    for name, module in packed.items():  # the kernels have tests of their own; dense is faster for 16 k tokens
        dense = torch.nn.Linear(module.in_features, module.out_features, bias=False)
        dense.weight.data = module.to_dense(torch.float32)
        replace_module(result.model, name, dense)
    return perplexity(result.model, windows), disk, memory


def test_sinq_is_within_five_percent_of_dense(bundled):
    dense = perplexity(bundled[0], bundled[2])
    assert compressed(bundled, "sinq")[0] <= 1.05 * dense


def test_prism_beats_wanda_then_rounding_at_equal_bits_and_sparsity(bundled):
    prism, disk, memory = compressed(bundled, "prism")
    assert disk <= 3.6 and memory <= 3.6, (disk, memory)
    rounded, rounded_disk, _ = compressed(bundled, "wanda", bits=4)
    assert abs(disk - rounded_disk) < 0.02
    assert prism <= rounded


def test_sparsegpt_beats_wanda(bundled):
    assert compressed(bundled, "sparsegpt")[0] <= compressed(bundled, "wanda")[0]
