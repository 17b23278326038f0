"""`python -m bench.figures`: writes the tables of docs/cpu.md and docs/gpu.md, from targets and measurements.

A figure counts as measured when a result under bench/results/ holds it; device, date and commit come from that file.
Everything else is "not yet measured": no figure is typed by hand.
"""

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .targets import (
    GPU_MODEL_SPEED,
    MODEL_BYTES,
    MODEL_LAYERS,
    MODEL_SPEED,
    OWN_BENCHMARK,
    SMALL_SHAPE,
    TARGETS,
    Target,
)

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
BEGIN, END = "<!-- figures: python -m bench.figures -->", "<!-- end of figures -->"
NOT_MEASURED = "not yet measured"
#: What a problem says beside its shape and its number of tokens, and what every problem of an op has in common.
_COMMON = {"shape", "n", "k", "m", "iterations", "sparsity"}

Shape = tuple[int, int]


@dataclass(frozen=True)
class Page:
    """A page of docs/ and the targets whose figures it holds."""

    name: str
    on_gpu: bool

    def holds(self, target: Target) -> bool:
        return (target.isa == "cuda") == self.on_gpu

    def takes(self, result: Mapping[str, Any]) -> bool:
        """Results of all threads of a machine; those of fewer are not what the targets speak of."""
        facts = result["environment"]
        if str(facts["isa"]).startswith("sm_"):
            return self.on_gpu
        return not self.on_gpu and facts.get("threads") == facts.get("cores")


PAGES = (Page("cpu.md", on_gpu=False), Page("gpu.md", on_gpu=True))


def results(folder: Path = HERE / "results") -> list[dict[str, Any]]:
    """All result files of benchmarks, oldest first."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/*.json"))]
    return sorted((r for r in found if "environment" in r), key=lambda result: result["environment"]["time"])


def detail(problem: Mapping[str, Any]) -> str:
    """ "variant prism", "bits 4, work blocks alone", or "" where shape and tokens say all."""
    return ", ".join(f"{key} {value}" for key, value in problem.items() if key not in _COMMON)


@dataclass(frozen=True)
class Measured:
    """One figure as a result file has it."""

    reached: float
    passed: bool
    source: str


def measured(target: Target, shape: Shape, m: int | None, found: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """The newest measurement of one figure by `detail`; empty where there is none."""
    newest: dict[str, Measured] = {}
    for result in found:
        facts, own = result["environment"], OWN_BENCHMARK.get(target.contender, result.get("op"))
        if target.isa not in ("cuda", facts["isa"]) or result.get("op") not in (None, own):
            continue
        for row in result.get("rows", ()):
            problem = row["problem"]
            if (row["contender"], (problem["n"], problem["k"]), problem.get("m")) != (target.contender, shape, m):
                continue
            for verdict in row["verdicts"]:
                if verdict["against"] == target.against:
                    source = source_of(facts)
                    newest[detail(problem)] = Measured(verdict["reached"], verdict["passed"], source)
    return newest


def cell(asked: float, figure: Measured | None) -> str:
    """ "3.10 of 3" where reached, "**2.90** of 3" where missed."""
    if figure is None:
        return f"{asked:g}: {NOT_MEASURED}"
    reached = f"{figure.reached:.2f}"
    return f"{reached if figure.passed else f'**{reached}**'} of {asked:g}"


def lines_of(target: Target, shape: Shape, columns: Sequence[int | None], found: Sequence[Mapping[str, Any]]):
    """The table's lines of one target and shape: one, or one per `detail`."""
    share = target.small_share if shape == SMALL_SHAPE else 1.0
    by_m = {m: measured(target, shape, m, found) for m in target.ratios}
    details = list(dict.fromkeys(name for figures in by_m.values() for name in figures)) or [""]
    for name in details:
        cells, sources = [], []
        for m in columns:
            if m not in target.ratios:
                cells.append("")
                continue
            figure = by_m[m].get(name)
            cells.append(cell(round(target.ratios[m] * share, 3), figure))
            sources += [figure.source] if figure is not None else []
        what = f"{shape[0]}x{shape[1]}" + (f", {name}" if name else "")
        instructions = "" if target.isa in ("cuda", "avx512_bf16") else f" ({target.isa})"
        source = "; ".join(dict.fromkeys(sources))
        yield f"| {target.contender}{instructions} | {target.against} | {what} | {' | '.join(cells)} | {source} |"


def table(page: Page, found: Sequence[Mapping[str, Any]], targets: Sequence[Target] = TARGETS) -> str:
    """One table of the figures by tokens, and one of those that have none."""
    chosen = [target for target in targets if page.holds(target)]
    own = [result for result in found if page.takes(result)]
    blocks = []
    for with_tokens in (True, False):
        group = [target for target in chosen if (None not in target.ratios) == with_tokens]
        if not group:
            continue
        columns = sorted({m for target in group for m in target.ratios}, key=lambda m: m or 0)
        heads = [f"m = {m}" if m else "ratio" for m in columns]
        lines = [f"| kernel | against | shape | {' | '.join(heads)} | measured on |", "|---" * (len(heads) + 4) + "|"]
        for target in group:
            for shape in target.shapes:
                lines += lines_of(target, shape, columns, own)
        blocks.append("\n".join(lines))
    blocks.append(gpu_model_table(own) if page.on_gpu else model_table(own))
    return "\n\n".join(blocks)


def model_table(found: Sequence[Mapping[str, Any]]) -> str:
    """The whole model on a CPU (bench.bench_model): tokens per second and bytes of the linears, relative to dense."""
    lines = [
        "| model of 1.1 B parameters, `generate`, batch 1 | tokens/s against dense | bytes of linears | measured on |",
        "|---|---|---|---|",
    ]
    for name, (speed, size) in model_figures(found).items():
        source = speed.source if speed is not None else ""
        lines.append(f"| {name} | {cell(MODEL_SPEED[name], speed)} | {cell(MODEL_BYTES[name], size)} | {source} |")
    return "\n".join(lines)


def model_figures(found: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Measured | None, Measured | None]]:
    """By variant: tokens per second relative to dense, the faster of eager and compiled on both sides, and bytes."""
    whole = [result for result in found if result.get("layers") == MODEL_LAYERS]
    machine = whole[-1]["environment"]["machine"] if whole else ""  # the newest result's
    whole = [result for result in whole if result["environment"]["machine"] == machine]
    rows = [(row, result) for result in whole for row in result["results"]]
    seconds: dict[str, float] = {}
    for row, _ in rows:
        per_token = statistics.median(row["seconds_per_token"])
        seconds[row["variant"]] = min(per_token, seconds.get(row["variant"], per_token))
    figures: dict[str, tuple[Measured | None, Measured | None]] = dict.fromkeys(MODEL_SPEED, (None, None))
    for row, result in rows:
        name = row["variant"]
        if name in figures and "dense" in seconds:
            speed, size = seconds["dense"] / seconds[name], row["linear_bytes"] / row["dense_linear_bytes"]
            source = source_of(result["environment"])
            figures[name] = (
                Measured(speed, speed >= MODEL_SPEED[name], source),
                Measured(size, size <= MODEL_BYTES[name], source),
            )
    return figures


def gpu_model_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Tokens per second of the whole model (bench.gpu_model) against dense."""
    newest: dict[str, Measured] = {}
    for result in found:
        for row in result.get("model", ()):
            asked = GPU_MODEL_SPEED.get(row["variant"])
            if asked is not None:
                passed = row["ratio"] >= asked
                newest[row["variant"]] = Measured(row["ratio"], passed, source_of(result["environment"]))
    lines = ["| model of 8 B parameters, `generate`, batch 1 | against dense bf16 | measured on |", "|---|---|---|"]
    for name, asked in GPU_MODEL_SPEED.items():
        figure = newest.get(name)
        lines.append(f"| {name} | {cell(asked, figure)} | {figure.source if figure else ''} |")
    return "\n".join(lines)


def source_of(facts: Mapping[str, Any]) -> str:
    """Machine, date and commit of a result."""
    return ", ".join(part for part in (facts["machine"], facts["time"][:10], facts.get("commit", "")[:10]) if part)


def count(page: Page, found: Sequence[Mapping[str, Any]], targets: Sequence[Target] = TARGETS) -> Iterator[bool | None]:
    """Each figure of the page: reached, missed, or None where it was not measured."""
    own = [result for result in found if page.takes(result)]
    for target in targets:
        if page.holds(target):
            for shape in target.shapes:
                for m in target.ratios:
                    figures = measured(target, shape, m, own)
                    yield from [figure.passed for figure in figures.values()] or [None]
    if not page.on_gpu:
        for pair in model_figures(own).values():
            yield from (None if figure is None else figure.passed for figure in pair)


def rendered(page: Page, text: str, found: Sequence[Mapping[str, Any]]) -> str:
    """`text` of the page with its tables of figures made anew."""
    verdicts = list(count(page, found))
    total = f"{len(verdicts)} figures: {verdicts.count(True)} reached, {verdicts.count(False)} missed (bold), "
    block = f"{BEGIN}\n{total}{verdicts.count(None)} {NOT_MEASURED}.\n\n{table(page, found)}\n{END}"
    pattern = re.escape(BEGIN) + r".*?" + re.escape(END)
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"docs/{page.name} must hold the lines {BEGIN} and {END}")
    return re.sub(pattern, lambda _: block, text, flags=re.DOTALL)


def main() -> int:
    found = results()
    for page in PAGES:
        path = DOCS / page.name
        path.write_text(rendered(page, path.read_text("utf-8"), found), "utf-8")
        print(f"written: docs/{page.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
