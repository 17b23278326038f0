"""One HTML page over all results of a device: a table per op with its targets, and its roofline plots."""

import json
import math
from html import escape
from pathlib import Path
from typing import Any

from . import table
from .roofline import figure_svg

STYLE = """
body { margin: 0 auto; max-width: 1280px; padding: 24px 20px 60px; background: #fff; color: #1c2128;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 4px; }
p { margin: 6px 0; } .note { color: #5a6472; font-size: 13px; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 3px 9px; border-bottom: 1px solid #e3e8ee; text-align: right; white-space: nowrap; }
th { background: #f3f5f8; position: sticky; top: 0; }
td.text, th.text { text-align: left; } tr.first td { border-top: 2px solid #b6c0cc; }
.pass { color: #0f7b4c; } .miss { color: #c3232f; } .refused { color: #c3232f; font-weight: 600; text-align: left; }
svg { max-width: 100%; height: auto; } nav a { margin-right: 14px; }
details { margin: 8px 0; } summary { cursor: pointer; }
"""
_NUMBERS = ("ms", "iqr", "ratio", "GB/s", "of stream", "GFLOP/s")
HEADINGS = ("shape", "m", "contender", *_NUMBERS, "asked", "served by", "note")
_TEXT = ("shape", "contender", "asked", "served by", "note")


def write_page(folder: Path) -> Path:
    """Writes index.html beside the JSON files of `folder`; returns its path."""
    results = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    ops = {name: result for name, result in results.items() if "rows" in result}
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in results)
    body = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>prism-kernels benchmarks</title>',
        f"<style>{STYLE}</style></head><body>", f"<h1>Benchmarks, {escape(folder.name)}</h1>",
        '<p class="note">Medians; contenders interleaved in one run; weights rotated past the last-level cache. '
        "Ratio = time of the first contender / own time.</p>",
        f"<nav>{links}</nav>", _targets_line(ops.values()),
    ]  # fmt: skip
    for name, result in results.items():
        body += _section(name, result) if "rows" in result else _model_section(name, result)
    path = folder / "index.html"
    path.write_text("\n".join([*body, "</body></html>", ""]), "utf-8")
    return path


def _targets_line(results: Any) -> str:
    found = [verdict["passed"] for result in results for row in result["rows"] for verdict in row["verdicts"]]
    return f"<p><strong>{sum(found)} of {len(found)}</strong> targets reached.</p>"


def _section(name: str, result: dict[str, Any]) -> list[str]:
    facts, rows = result["environment"], result["rows"]
    return [
        f'<h2 id="{escape(name)}">{escape(name)}</h2>',
        f"<p>{escape(result['about'])}</p>",
        f'<p class="note">{escape(facts["time"])}: {escape(table.environment_line(facts))}.</p>',
        figure_svg(rows, facts),
        "<details open><summary>table</summary>",
        _table(rows),
        "</details>",
    ]


def _table(rows: list[dict[str, Any]]) -> str:
    parts = ['<div class="scroll"><table><thead><tr>']
    parts += [f'<th class="{"text" if head in _TEXT else ""}">{head}</th>' for head in HEADINGS]
    parts.append("</tr></thead><tbody>")
    last = None
    for row in rows:
        here = (table.problem_text(row["problem"]), row["problem"].get("m", ""))
        kind = ' class="first"' if here != last else ""
        parts.append(f"<tr{kind}>{_cells(row, *here)}</tr>")
        last = here
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _cells(row: dict[str, Any], shape: str, m: Any) -> str:
    start = f'<td class="text">{escape(shape)}</td><td>{m}</td><td class="text">{escape(row["contender"])}</td>'
    if row["error"]:
        return f'{start}<td class="refused" colspan="9">REFUSED: {escape(row["error"])}</td>'
    share = "" if math.isnan(row["stream_share"]) else f"{100 * row['stream_share']:.0f} %"
    numbers = (f"{row['median_ms']:.3f}", f"{row['spread_ms']:.3f}", f"{row['ratio']:.2f}", f"{row['gbps']:.1f}", share,
               f"{row['gflops']:.0f}" if row["gflops"] else "")  # fmt: skip
    asked = "<br>".join(
        f'<span class="{"pass" if v["passed"] else "miss"}">{"pass" if v["passed"] else "miss"} {v["asked"]:g} of '
        f"{escape(v['against'])}: {v['reached']:.2f}</span>"
        for v in row["verdicts"]
    )
    end = "".join(f'<td class="text">{text}</td>' for text in (asked, escape(row["served_by"]), escape(row["note"])))
    return start + "".join(f"<td>{number}</td>" for number in numbers) + end


def _model_section(name: str, result: dict[str, Any]) -> list[str]:
    """A result that is a plain table: `columns` and `lines`."""
    parts = [f'<h2 id="{escape(name)}">{escape(name)}</h2>', f"<p>{escape(result['about'])}</p>"]
    parts.append('<div class="scroll"><table><thead><tr>')
    parts += [f"<th>{escape(column)}</th>" for column in result["columns"]]
    parts.append("</tr></thead><tbody>")
    for line in result["lines"]:
        parts.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>")
    return [*parts, "</tbody></table></div>"]
