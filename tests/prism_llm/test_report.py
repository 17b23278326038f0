"""The HTML report: self-contained, complete, safe against names with markup, readable without a plot library."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from prism_llm.report import render_html, write_report
from prism_llm.report.scatter import Point, scatter_svg

LAYER = {
    "name": "model.layers.0.mlp.up_proj",
    "format": "dual_shift",
    "shape": [64, 32],
    "bytes": 1100,
    "bits_per_weight": 4.297,
    "relative_error": 0.1234,
}


def method(name: str, title: str, **changes) -> dict:
    return {
        "name": name,
        "title": title,
        "status": "done",
        "recipe": {"method": name, "bits": 4},
        "layers": [LAYER],
        "disk_bytes": 1_234_567,
        "bits_per_weight": 4.297,
        "perplexity": {"ppl": 12.345},
        "perplexity_ratio": 1.05,
        "top1_agreement": 0.876,
        "decode": {"tokens_per_second": 321.0},
        "block_ratio": 3.21,
        "seconds": {"compress": 1.5},
    } | changes


def results(**changes) -> dict:
    dense = method("dense", "dense", layers=[], recipe=None, block_ratio=None, seconds={"compress": None})
    failed = {
        "name": "c",
        "title": "broken one",
        "status": "failed",
        "error": "ValueError: no",
        "recipe": None,
        "layers": [],
    }
    return {
        "started": "2026-01-01 00:00 UTC",
        "seconds": 100.0,
        "fast": False,
        "model": {"name": "tiny-llama", "parameters": 4_200_000, "compressible_weights": 3_145_728},
        "environment": {"prism_kernels": "0.1.0", "gpu": None, "packages": {"torch": "2.13"}, "isas": ["generic"]},
        "protocols": {"perplexity": "the protocol", "calibration": "64 sequences", "decode": "batch 1"},
        "methods": [dense, method("prism", "prism 50 % + 4-bit", bits_per_weight=3.3), failed],
        "notes": ["the machine was busy"],
        "has_layer_errors": True,
        "block_speed": {
            "rows": [
                {"name": "dense bf16", "m": 1, "ms": 20.0, "low_ms": 19.0, "high_ms": 21.0, "ratio": 1.0, "rounds": 15}
                | {"nbytes": 436_207_616, "bits_per_weight": 16.0}
            ],
            "protocol": "all 7 linears",
        },
        "block_speed_error": None,
    } | changes  # fmt: skip


class Resources(HTMLParser):
    """Collects whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [] if tag in ("meta", "br") else [tag]
        self.found += [
            (tag, k, v) for k, v in attributes if k in ("src", "href", "xlink:href", "action", "data", "srcset")
        ]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def test_report_needs_no_network():
    page = render_html(results())
    parser = Resources()
    parser.feed(page)
    assert parser.found == [] and parser.open == []
    assert not {"script", "link", "iframe", "img", "object"} & set(parser.tags)
    assert not re.search(r"https?://|url\(|@import", page)


def test_report_is_complete():
    page = render_html(results())
    for words in (
        "dense", "prism 50 % + 4-bit", "broken one", "ValueError: no", "12.345", "3.300", "87.6", "321.0", "3.21x",
        "1.23", "+5.0 %", "the protocol", "64 sequences", "model.layers.0.mlp.up_proj", "0.1234", "all 7 linears",
        "method: prism", "tiny-llama", "the machine was busy", "4,200,000", "torch 2.13", "<svg",
    ):  # fmt: skip
        assert words in page, words
    assert "prefers-color-scheme: dark" in page
    rows = re.findall(r"<tr[^>]*>", page)
    assert len(rows) == 1 + 3 + 1 + 1 + 1 + 1


def test_report_of_a_run_that_ended_early():
    partial = results(block_speed=None, block_speed_error="out of memory", methods=results()["methods"][:1])
    assert "Not measured: out of memory" in render_html(partial)
    assert "No points" in render_html(results(methods=[]))


def test_names_cannot_smuggle_markup():
    evil = method("x", "<script>alert(1)</script>", recipe={"dataset": "</pre><img src=x>"})
    page = render_html(results(methods=[evil], model={"name": "<b>", "parameters": 1, "compressible_weights": None}))
    assert "<script>" not in page and "<img" not in page and "<b>" not in page


def test_files_hold_the_same_numbers(tmp_path):
    path = write_report(results(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert json.loads((path.parent / "results.json").read_text()) == results()
    assert path.read_text() == render_html(results())
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "results.json"]


@pytest.mark.parametrize(
    "values",
    [
        [(4.0, 10.0)],
        [(16.0, 8.0), (4.3, 8.5), (9.0, 9.9), (3.3, 31.0), (3.3, 12.0), (3.3, 12.01)],
        [(16.0, 8.0), (4.3, 80.0), (2.0, 8e5)],
        [(float("nan"), 1.0), (1.0, float("inf")), (2.0, 0.0), (3.0, 3.0)],
        [(0.0, 1.0)],
    ],
)
def test_scatter_is_xml_with_every_finite_point_inside(values):
    points = [Point(f"<{i}> & co", x, y, i) for i, (x, y) in enumerate(values)]
    svg = ElementTree.fromstring(scatter_svg(points, x_title="x < 1", y_title="y"))
    circles = list(svg.iter("circle"))
    expected = [p for p in points if p.x == p.x and 0 < p.y < float("inf")]
    assert len(circles) == len(expected)
    for circle in circles:
        assert 64 <= float(circle.get("cx")) <= 690 and 18 <= float(circle.get("cy")) <= 332
    labels = [(float(t.get("x")), float(t.get("y"))) for t in svg.iter("text") if t.get("class") == "label"]
    for index, (x, y) in enumerate(labels):
        assert all(abs(y - other_y) >= 15 or abs(x - other_x) >= 190 for other_x, other_y in labels[:index])
