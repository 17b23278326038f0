"""On the bundled model: what methods are expected to gain over one another, by perplexity and by layers' outputs."""

import pytest
import torch

from prism_llm import assets, compress
from prism_llm.data.sources import calibration_batches, load_text
from prism_llm.evaluation import evaluation_text, perplexity
from prism_llm.models import load_network, load_tokenizer
from prism_llm.pipeline import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measure():
    """Of a recipe: (perplexity, mean relative error of the linears' outputs), each recipe measured once."""
    path = str(assets.bundled_model_path())
    model, tokenizer = load_network(path, torch.float32), load_tokenizer(path)
    calibration = calibration_batches(load_text("stdlib", "train"), tokenizer, 48, 256, 0)
    text = evaluation_text(load_text("stdlib", "test"), tokenizer, model=model, max_windows=16)
    known: dict[str, tuple[float, float]] = {}

    def run(method: str, **fields: object) -> tuple[float, float]:
        recipe = Recipe.from_preset(method, **fields)
        key = repr(recipe)
        if key not in known:
            result = compress(model, recipe, calibration=calibration, tokenizer=tokenizer)
            errors = [linear.error for linear in result.report.linears]
            known[key] = perplexity(result.model, text).ppl, sum(errors) / len(errors)
        return known[key]

    return run


def assert_ordered(*better_first: tuple[float, float]) -> None:
    for column in zip(*better_first, strict=True):
        assert list(column) == sorted(column), better_first


def test_compensation(measure):
    """Exact least squares < SparseGPT < Wanda, and < the sweep on the same mask."""
    least_squares = measure("sparsegpt", compensate="least_squares")
    assert_ordered(least_squares, measure("sparsegpt"), measure("wanda"))
    assert_ordered(
        measure("wanda", compensate="least_squares"), measure("wanda", compensate="obs_sweep"), measure("wanda")
    )


def test_rounding_inside_the_sweep(measure):
    """Joint < prune, then round."""
    fields = {"bits": 3, "group_size": 64}
    assert_ordered(measure("sparsegpt", **fields), measure("sparsegpt", round="rtn", **fields))


def test_zeros_stay_out_of_the_scale(measure):
    """Masked Sinkhorn < Sinkhorn with zeros, of the same iteration and strips, at 3 bits: in the linears' outputs, and
    closed form < both. (Perplexities are too close to tell on so short a text.)"""
    scales = ("rms", "sinq", "sinq_with_zeros")
    errors = [measure("prism", bits=3, scale=scale)[1] for scale in scales]
    assert errors == sorted(errors), errors


def test_the_search_of_scales(measure):
    """A-SINQ < SINQ in the linears' outputs, which it minimizes."""
    assert measure("asinq", bits=3)[1] < 0.95 * measure("sinq", bits=3)[1]
