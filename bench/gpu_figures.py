"""`python -m bench.gpu_figures`: writes the table of docs/gpu.md from the targets and from what was measured.

A figure counts as measured when a result under bench/results/ of a GPU holds it; device, date and commit come from that
file. Everything else is "not yet measured": no figure is typed by hand.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .targets import SMALL_SHAPE, TARGETS, Target

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "gpu.md"
BEGIN, END = "<!-- figures: python -m bench.gpu_figures -->", "<!-- end of figures -->"
NOT_MEASURED = "not yet measured"


def results(folder: Path = HERE / "results") -> list[dict[str, Any]]:
    """The result files of all GPUs, oldest first."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/*.json"))]
    gpu = [result for result in found if str(result["environment"].get("isa", "")).startswith("sm_")]
    return sorted(gpu, key=lambda result: result["environment"]["time"])


def figures(targets: tuple[Target, ...] = TARGETS) -> Iterator[tuple[Target, tuple[int, int], int | None]]:
    for target in targets:
        if target.isa == "cuda":
            for shape in target.shapes:
                for m in target.ratios:
                    yield target, shape, m


def reached(target: Target, shape: tuple[int, int], m: int | None, found: list[dict[str, Any]]) -> str:
    """The newest measurement of one figure, or NOT_MEASURED."""
    text = NOT_MEASURED
    for result in found:
        for row in result["rows"]:
            problem = row["problem"]
            if (row["contender"], (problem["n"], problem["k"]), problem.get("m")) != (target.contender, shape, m):
                continue
            for verdict in row["verdicts"]:
                if verdict["against"] == target.against:
                    facts = result["environment"]
                    mark = "" if verdict["passed"] else " (missed)"
                    source = f"{facts['machine']}, {facts['time'][:10]}, {facts['commit'][:10]}"
                    text = f"{verdict['reached']:.2f}{mark}: {source}"
    return text


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| kernel | against | shape | m | asked | reached |", "|---|---|---|---|---|---|"]
    for target, shape, m in figures():
        asked = target.ratios[m] * (target.small_share if shape == SMALL_SHAPE else 1.0)
        cells = (target.contender, target.against, f"{shape[0]}x{shape[1]}", "" if m is None else str(m), f"{asked:g}")
        lines.append(f"| {' | '.join(cells)} | {reached(target, shape, m, found)} |")
    return "\n".join(lines)


def rendered(page: str, found: list[dict[str, Any]]) -> str:
    """`page` with its table of figures made anew."""
    block = f"{BEGIN}\n{table(found)}\n{END}"
    pattern = re.escape(BEGIN) + r".*?" + re.escape(END)
    if not re.search(pattern, page, flags=re.DOTALL):
        raise ValueError(f"{PAGE.name} must hold the lines {BEGIN} and {END}")
    return re.sub(pattern, lambda _: block, page, flags=re.DOTALL)


def main() -> int:
    PAGE.write_text(rendered(PAGE.read_text("utf-8"), results()), "utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
