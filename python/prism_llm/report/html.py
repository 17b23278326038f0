"""Renders the results of a comparison as one HTML file without external resources."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .scatter import Point, scatter_svg

_TEMPLATE = "report.html"
_NONE = "\u2013"


def render_html(results: Mapping[str, Any]) -> str:
    """HTML of a comparison (`prism_llm.evaluation.comparison` describes the dictionary)."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": _fixed,
        "count": lambda value: _NONE if value is None else f"{value:,}",
        "megabytes": lambda value: _NONE if value is None else f"{value / 1e6:.2f}",
        "percent": lambda value: _NONE if value is None else f"{100 * value:.1f}",
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    done = [method for method in results["methods"] if method["status"] == "done"]
    points = [
        Point(method["title"], method["bits_per_weight"], method["perplexity"]["ppl"], index)
        for index, method in enumerate(results["methods"])
        if method["status"] == "done"
    ]
    plot = scatter_svg(points, x_title="bits per weight of the compressed linears, on disk", y_title="perplexity")
    return environment.get_template(_TEMPLATE).render(
        r=results, done=done, layers=_layer_rows(done), plot=Markup(plot), details=_flat(results["environment"])
    )


def write_report(results: Mapping[str, Any], folder: str | Path) -> Path:
    """Writes report.html and results.json (the same numbers) into `folder`; returns the path of the report."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_atomically(target / "report.html", render_html(results))
    return target / "report.html"


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _fixed(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _layer_rows(done: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per layer: its shape, and the cell of each method that compressed it."""
    rows: dict[str, dict[str, Any]] = {}
    for index, method in enumerate(done):
        for layer in method["layers"]:
            row = rows.setdefault(
                layer["name"], {"name": layer["name"], "shape": layer["shape"], "cells": [None] * len(done)}
            )
            row["cells"][index] = layer
    return list(rows.values())


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """The environment as lines for people; unset variables are left out."""
    lines: dict[str, str] = {}
    for key, value in environment.items():
        if key == "ops":
            continue
        if isinstance(value, Mapping):
            lines[key] = ", ".join(f"{name} {item}" for name, item in value.items() if item is not None) or "none"
        elif isinstance(value, list):
            lines[key] = ", ".join(str(item) for item in value)
        else:
            lines[key] = "none" if value is None else str(value)
    return lines
