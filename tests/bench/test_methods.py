"""The table of methods on a tiny model: every preset has its rows, and a second run measures only what is missing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "prism_llm"))

from tiny_text import tiny_folder, tiny_text

from bench import methods


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    (folder / "text.txt").write_text(tiny_text(150), "utf-8")
    tiny_folder(folder / "model")
    (folder / "page.md").write_text(f"# Methods\n\n{methods.BEGIN}\nold\n{methods.END}\n\nWhy.\n", "utf-8")
    return folder


def options(folder, *more):
    text = str(folder / "text.txt")
    return [
        "--model", str(folder / "model"), "--dataset", text, "--text", text, "--num-samples", "4", "--seqlen", "32",
        "--max-windows", "2", "--steps", "5", "--out", str(folder / "out.json"), "--page", str(folder / "page.md"),
        *more,
    ]  # fmt: skip


def test_every_preset_has_rows():
    from prism_llm.pipeline import PRESETS

    keys = [contender.key for contender in methods.contenders(10)]
    assert len(keys) == len(set(keys)) and keys[0] == "dense | dense"
    for preset in PRESETS:
        assert any(key.endswith(f"| {preset}") for key in keys), preset
    assert {"4-bit | sinq", "4-bit | sparsegpt", "50+4-bit | prism", "2:4 | wanda", "4:8 | ria"} <= set(keys)
    assert not {"4-bit | wanda", "2:4 | sinq", "50+4-bit | three-tier"} & set(keys)


def test_rows_are_measured_once_and_kept(folder, monkeypatch):
    methods.main(options(folder, "--only", "dense", "--only", "2:4 | wanda", "--only", "three-tier"))
    results = json.loads((folder / "out.json").read_text())
    assert {"dense | dense", "2:4 | wanda", "three-tier | three-tier"} <= set(results["rows"])
    assert any("iterations" in key for key in results["rows"]) and any("then 5 steps" in key for key in results["rows"])
    for row in results["rows"].values():
        assert set(row["perplexity"]) == {"held-out", "text.txt"} and all(p > 1 for p in row["perplexity"].values())
    assert results["rows"]["dense | dense"]["bits_per_weight"] == 16
    assert results["rows"]["2:4 | wanda"]["bits_per_weight"] < 10
    page = (folder / "page.md").read_text()
    assert page.startswith("# Methods") and page.endswith("\n\nWhy.\n") and "old" not in page
    assert "### 2:4" in page and "| wanda |" in page and "perplexity, held-out" in page
    assert str(folder) not in (folder / "page.md").read_text() + (folder / "out.json").read_text().split('"rows"')[0]
    measured = []
    monkeypatch.setattr(methods.Study, "measure", lambda self, contender, path: measured.append(contender.key))
    methods.main(options(folder, "--only", "2:4 | wanda", "--only", "dense | dense"))
    assert measured == []
    with pytest.raises(SystemExit, match="must be of the same model and texts"):
        methods.main(options(folder, "--max-windows", "3"))


def test_a_page_without_marks_is_left_alone(folder, tmp_path):
    (tmp_path / "page.md").write_text("mine", "utf-8")
    with pytest.raises(SystemExit, match="must hold the marks"):
        methods.write_page(
            {"settings": {"model": "", "calibration": "", "texts": {"a": ""}}, "rows": {}}, tmp_path / "page.md"
        )
    assert (tmp_path / "page.md").read_text() == "mine"
