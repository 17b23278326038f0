"""On the bundled model methods rank as published, where this model can tell them apart.

At 50 % unstructured it cannot (perplexity of Wanda and magnitude within 1 %, and of RIA within 2 %); inputs without
outlier channels are a possible reason, not a tested one. Margins were chosen after one run on the same text: these
tests notice a method that gets worse, they are no evidence for the order itself.
"""

import copy

import pytest
import torch

from prism_llm import Recipe, compress_

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measure():
    """The perplexity of the bundled model after a recipe, on text that calibration has not seen."""
    from prism_llm.data.sources import calibration_batches, load_text
    from prism_llm.evaluation import evaluation_text, perplexity
    from prism_llm.models import load_network, load_tokenizer
    from prism_llm.models.loading import resolve_source

    model, tokenizer = load_network(resolve_source(None), "auto").eval(), load_tokenizer(None)
    calibration = calibration_batches(load_text("stdlib", "train", None), tokenizer, 16, 512, 0)
    text = evaluation_text(load_text("stdlib", "test", None), tokenizer, seqlen=512, model=model, max_windows=40)
    known: dict[Recipe, float] = {}

    def of(method, **changes):
        recipe = Recipe(method=method, **changes)
        if recipe not in known:
            compressed = copy.deepcopy(model)
            compress_(compressed, recipe, calibration if recipe.needs_calibration else None)
            with torch.no_grad():
                known[recipe] = perplexity(compressed, text).ppl
        return known[recipe]

    return of


def test_calibrated_scores_beat_magnitude(measure):
    for options in ({"pattern": "2:4"}, {"sparsity": 0.6}):
        magnitude, wanda, ria = (measure(method, **options) for method in ("magnitude", "wanda", "ria"))
        assert max(wanda, ria) < 0.99 * magnitude
        assert abs(wanda - ria) < 0.06 * wanda


@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria"])
def test_permutation_improves_2_of_4(measure, method):
    assert measure(method, pattern="2:4", permute="lsa") < 0.95 * measure(method, pattern="2:4")


def test_permutation_and_compensation_add_up(measure):
    options = {"pattern": "2:4", "compensate": "obs_sweep"}
    swept = measure("wanda", **options)
    assert swept < 0.9 * measure("wanda", pattern="2:4")
    assert measure("wanda", permute="lsa", **options) < 0.98 * swept


def test_more_of_a_row_is_worse(measure):
    assert measure("wanda", pattern="3:4") < measure("wanda", pattern="4:8") < measure("wanda", pattern="2:4")


@pytest.mark.parametrize("method", ["wanda", "ria"])
def test_owl_helps_where_much_is_pruned(measure, method):
    assert measure(method, sparsity=0.7, ratios="owl") < 0.95 * measure(method, sparsity=0.7)
