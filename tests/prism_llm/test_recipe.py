"""Recipes: presets fill, users change, files round-trip, and every wrong value is named with its rule."""

import pytest

from prism_llm.pipeline import PRESETS, Recipe, as_recipe


def test_presets_are_complete_and_explained():
    assert {"sinq", "magnitude", "wanda", "ria", "clearcut", "sparsegpt", "prism", "three-tier"} <= set(PRESETS)
    for name, preset in PRESETS.items():
        recipe = Recipe.from_preset(name)
        assert recipe.method == name
        assert all(getattr(recipe, field) == value for field, value in preset().items())
        assert "Deviations:" in preset.__doc__ and "/" in preset.__doc__


def test_what_presets_need():
    needs = {
        name: (Recipe.from_preset(name).needs_calibration, Recipe.from_preset(name).needs_gram) for name in PRESETS
    }
    known = {
        "sinq": (False, False),
        "asinq": (True, True),
        "magnitude": (False, False),
        "wanda": (True, False),
        "ria": (True, False),
        "clearcut": (True, False),
        "sparsegpt": (True, True),
        "prism": (True, True),
        "three-tier": (True, False),
    }
    assert known.items() <= needs.items()
    assert not Recipe.from_preset("wanda", score="magnitude").needs_calibration
    assert Recipe.from_preset("magnitude", ratios="owl").needs_calibration
    assert Recipe.from_preset("sparsegpt", sparsity=0, bits=4).needs_gram  # GPTQ
    assert not Recipe(bits=4, compensate="obs_one_shot").needs_calibration  # nothing to compensate


def test_fields_change_a_preset():
    recipe = Recipe.from_preset("prism", sparsity=0.6)
    assert (recipe.sparsity, recipe.bits, recipe.method) == (0.6, 4, "prism")
    assert Recipe(method="prism", sparsity=0.6) == recipe == as_recipe({"method": "prism", "sparsity": 0.6})
    assert as_recipe("prism", sparsity=0.6) == as_recipe(Recipe.from_preset("prism"), sparsity=0.6) == recipe
    with pytest.raises(TypeError, match="got int"):
        as_recipe(4)


def test_an_n_of_m_pattern_brings_its_sparsity():
    assert Recipe.from_preset("wanda", pattern="1:4").sparsity == 0.75
    assert Recipe.from_preset("wanda").replace(pattern="1:4").sparsity == 0.75
    assert Recipe.from_preset("wanda", pattern="2:4", sparsity=0.5).sparsity == 0.5
    with pytest.raises(ValueError, match=r"sparsity must be 0\.75, which the pattern 1:4 implies, got 0\.5"):
        Recipe.from_preset("wanda", pattern="1:4", sparsity=0.5)


def test_recipes_are_frozen_and_hashable():
    recipe = Recipe.from_preset("sinq")
    with pytest.raises(ValueError, match="frozen"):
        recipe.bits = 3
    assert hash(recipe) == hash(Recipe.from_preset("sinq"))


@pytest.mark.parametrize("name", [*PRESETS, "custom"])
def test_files_round_trip_with_every_field(tmp_path, name):
    bits = None if name == "three-tier" else 3
    recipe = Recipe(method=name, bits=bits, targets=["q_proj", "re:.*mlp.*"], seed=7)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    text = (tmp_path / "recipe.yaml").read_text()
    assert all(f"{field}:" in text for field in Recipe.model_fields)


def test_a_short_file_is_filled_from_its_method(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: prism\nsparsity: 0.6\n")
    assert Recipe.load(path) == Recipe.from_preset("prism", sparsity=0.6)
    for text, message in (("- 1\n", "must hold a mapping"), ("a: [", "must be a YAML file"), ("bitz: 4\n", "bitz")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Recipe.load(path)


WRONG = [
    ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1\.0"),
    ({"sparsity": -0.1}, r"sparsity must be in \[0, 1\), got -0\.1"),
    ({"sparsity": float("nan")}, r"sparsity must be in \[0, 1\), got nan"),
    ({"bits": 7}, "bits must be one of 2, 3, 4, 5, 6, 8 or None, got 7"),
    ({"bits": 3, "codebook": "nf4"}, "bits must be 4 for codebook nf4, got 3"),
    ({"bits": 4, "group_size": 0}, "group_size must be at least 1 or None, got 0"),
    ({"bits": 4, "codebook": "nf5"}, "codebook"),
    ({"pattern": "4:2"}, "1 <= n < m"),
    ({"percdamp": 0.0, "bits": 4}, r"percdamp must be positive and finite, got 0\.0"),
    ({"block_size": 0, "bits": 4}, "block_size must be at least 1, got 0"),
    ({"max_tokens": 0, "bits": 4}, "max_tokens must be at least 1, got 0"),
    ({"num_calibration_samples": 0, "bits": 4}, "num_calibration_samples must be at least 1, got 0"),
    ({"targets": [], "bits": 4}, "targets must name at least one pattern"),
    (
        {"score": "sparsegpt", "sparsity": 0.5},
        "compensate must be obs_sweep or least_squares for score sparsegpt, got none",
    ),
    ({"method": "sparsegpt", "pattern": "5:12"}, "block_size must be a multiple of m in the pattern 5:12, got 128"),
    ({"bits": 4, "round": "joint"}, "compensate must be obs_sweep or least_squares for joint rounding, got none"),
    ({"method": "sparsegpt", "bits": 4, "codebook": "nf4"}, "codebook must be uniform for joint rounding, got nf4"),
    ({"method": "sparsegpt", "bits": 4, "group_size": 48}, "block_size must be a multiple of group_size 48"),
    ({"bits": 4, "codebook": "nf4", "round": "hqq"}, "codebook must be uniform for hqq rounding, got nf4"),
    ({"bits": 4, "scale": "awq"}, "scale"),
    ({"low_rank": 0}, "low_rank must be an integer >= 1, .*, got 0"),
    ({"low_rank": 1.5}, r"low_rank must be an integer >= 1, .*, got 1\.5"),
    ({"low_rank": "best"}, "low_rank"),
    ({"low_rank": 4, "low_rank_of": "pruned"}, "low_rank_of must be weight where nothing is pruned, got pruned"),
    ({"low_rank": 4, "low_rank_of": "residual"}, "low_rank_of must be weight where nothing is pruned or quantized"),
    ({"low_rank": 4, "low_rank_targets": []}, "low_rank_targets must name at least one pattern"),
    ({"method": "three-tier", "low_rank": 4}, "low_rank must be None with tiers, got 4"),
    ({"ria_exponent": -1.0, "sparsity": 0.5}, r"ria_exponent must be finite and not negative, got -1\.0"),
    ({"scope": "global", "sparsity": 0.5}, "score must be magnitude for scope global, got wanda"),
    ({"method": "magnitude", "scope": "global", "pattern": "2:4"}, "pattern must be unstructured for scope global"),
    ({"method": "magnitude", "scope": "global", "ratios": "owl"}, "ratios must be uniform for scope global, got owl"),
    ({"ratios": "owl", "pattern": "2:4"}, "ratios must be uniform for the pattern 2:4, got owl"),
    ({"ratios": "best", "sparsity": 0.5}, "ratios"),
    ({"owl_lambda": 0.5, "sparsity": 0.5}, r"owl_lambda must be in \[0, 0\.5\), got 0\.5"),
    ({"owl_threshold": 0.0, "sparsity": 0.5}, r"owl_threshold must be positive and finite, got 0\.0"),
    ({"permute": "lsa", "sparsity": 0.5}, "pattern must be n:m for a permutation, got unstructured"),
    ({"permute": "best", "pattern": "2:4"}, "permute"),
    (
        {"method": "sparsegpt", "pattern": "2:4", "permute": "lsa"},
        "score must be known before the sweep for a permutation .*, got sparsegpt",
    ),
    (
        {"method": "sparsegpt", "score": "wanda", "pattern": "2:4", "permute": "lsa", "bits": 4, "group_size": 64},
        "group_size must be None for joint rounding with a permutation .*, got 64",
    ),
    ({"score": "wanda_variant", "pattern": "2:4"}, "pattern must be unstructured for score wanda_variant"),
    (
        {"score": "wanda_variant", "sparsity": 0.5, "scope": "row"},
        "scope must be matrix for score wanda_variant, got row",
    ),
    ({"method": "sparsgpt"}, "method must be one of sinq, .*custom, got 'sparsgpt'"),
    ({"method": 3}, "got 3"),
    ({"score": "best", "sparsity": 0.5}, "score"),
    ({"format_version": 2, "bits": 4}, "format_version"),
    ({"unheard": 1, "bits": 4}, "unheard"),
    ({}, "sparsity or bits must ask for something, got sparsity=0, bits=None"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)
