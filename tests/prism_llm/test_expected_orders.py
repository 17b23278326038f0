"""On the bundled model methods rank as published, by perplexity and by linears' outputs, where it can tell them apart.

At 50 % unstructured it cannot (perplexity of Wanda and magnitude within 1 %, and of RIA within 2 %); inputs without
outlier channels are a possible reason, not a tested one. Margins were chosen after one run on the same text: these
tests notice a method that gets worse, they are no evidence for the order itself.
"""

import copy
from typing import NamedTuple

import pytest
import torch

from prism_llm import Recipe, compress_

pytestmark = pytest.mark.slow


class Measured(NamedTuple):
    ppl: float
    error: float  # mean over linears of the relative error of their outputs


@pytest.fixture(scope="module")
def measure():
    """Of the bundled model after a recipe, on text that calibration has not seen; each recipe once."""
    from prism_llm.data.sources import calibration_batches, load_text
    from prism_llm.evaluation import evaluation_text, perplexity
    from prism_llm.models import load_network, load_tokenizer
    from prism_llm.models.loading import resolve_source

    model, tokenizer = load_network(resolve_source(None), "auto").eval(), load_tokenizer(None)
    calibration = calibration_batches(load_text("stdlib", "train", None), tokenizer, 16, 512, 0)
    text = evaluation_text(load_text("stdlib", "test", None), tokenizer, seqlen=512, model=model, max_windows=40)
    known: dict[Recipe, Measured] = {}

    def of(method, **changes):
        recipe = Recipe(method=method, **changes)
        if recipe not in known:
            compressed = copy.deepcopy(model)
            report = compress_(compressed, recipe, calibration if recipe.needs_calibration else None)
            errors = [linear.error for linear in report.linears]
            with torch.no_grad():
                known[recipe] = Measured(perplexity(compressed, text).ppl, sum(errors) / len(errors))
        return known[recipe]

    return of


def assert_ordered(*better_first):
    for column in zip(*better_first, strict=True):
        assert list(column) == sorted(column), better_first


def test_calibrated_scores_beat_magnitude(measure):
    for options in ({"pattern": "2:4"}, {"sparsity": 0.6}):
        magnitude, wanda, ria = (measure(method, **options).ppl for method in ("magnitude", "wanda", "ria"))
        assert max(wanda, ria) < 0.99 * magnitude
        assert abs(wanda - ria) < 0.06 * wanda


@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria"])
def test_permutation_improves_2_of_4(measure, method):
    assert measure(method, pattern="2:4", permute="lsa").ppl < 0.95 * measure(method, pattern="2:4").ppl


def test_permutation_and_compensation_add_up(measure):
    options = {"pattern": "2:4", "compensate": "obs_sweep"}
    swept = measure("wanda", **options).ppl
    assert swept < 0.9 * measure("wanda", pattern="2:4").ppl
    assert measure("wanda", permute="lsa", **options).ppl < 0.98 * swept


def test_more_of_a_row_is_worse(measure):
    patterns = [measure("wanda", pattern=pattern).ppl for pattern in ("3:4", "4:8", "2:4")]
    assert patterns == sorted(patterns)


@pytest.mark.parametrize("method", ["wanda", "ria"])
def test_owl_helps_where_much_is_pruned(measure, method):
    assert measure(method, sparsity=0.7, ratios="owl").ppl < 0.95 * measure(method, sparsity=0.7).ppl


def test_compensation(measure):
    """Exact least squares < SparseGPT < Wanda, and < the sweep on the same mask."""
    assert_ordered(measure("sparsegpt", compensate="least_squares"), measure("sparsegpt"), measure("wanda"))
    masked = [measure("wanda", **changes) for changes in ({"compensate": "least_squares"}, {"compensate": "obs_sweep"})]
    assert_ordered(*masked, measure("wanda"))


def test_rounding_inside_the_sweep(measure):
    """Joint < prune, then round."""
    fields = {"bits": 3, "group_size": 64}
    assert_ordered(measure("sparsegpt", **fields), measure("sparsegpt", round="rtn", **fields))


def test_zeros_stay_out_of_the_scale(measure):
    """Masked Sinkhorn < Sinkhorn with zeros, of the same iteration and strips, at 3 bits: in the linears' outputs, and
    closed form < both. (Perplexities are too close to tell on so short a text.)"""
    errors = [measure("prism", bits=3, scale=scale).error for scale in ("rms", "sinq", "sinq_with_zeros")]
    assert errors == sorted(errors)


def test_the_search_of_scales(measure):
    """A-SINQ < SINQ in the linears' outputs, which it minimizes."""
    assert measure("asinq", bits=3).error < 0.95 * measure("sinq", bits=3).error
