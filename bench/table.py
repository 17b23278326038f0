"""The results as text: a line while a benchmark runs, a table per op, and all targets at the end."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from .harness import Row
from .targets import Verdict

WIDTH = 260  # what the longest row needs; nothing is cut off


def environment_line(facts: dict[str, Any]) -> str:
    return (
        f"{facts['machine']}, {facts['threads']} threads, {facts['isa']}, torch {facts['torch']}, load average "
        f"{facts['load_average']}; measured roofs: read {facts['stream_gbps']} GB/s, GEMM {facts['bf16_gflops']} "
        f"(bf16) and {facts['fp32_gflops']} (fp32) GFLOP/s"
    )


def problem_text(problem: dict[str, Any]) -> str:
    rest = [f"{key} {value}" for key, value in problem.items() if key not in ("shape", "n", "k", "m")]
    return ", ".join([f"{problem['n']}x{problem['k']}", *rest])


def progress_line(row: Row) -> str:
    where = f"  {problem_text(row.problem)}" + (f", m = {row.problem['m']}" if "m" in row.problem else "")
    if row.error:
        return f"{where}: {row.contender} REFUSED: {row.error}"
    return f"{where}: {row.contender} {row.median_ms:.3f} ms, {row.ratio:.2f}x"


def verdict_text(verdict: Verdict) -> str:
    return f"{'pass' if verdict.passed else 'MISS'} {verdict.asked:g} of {verdict.against}: {verdict.reached:.2f}"


def print_rows(console: Console, rows: Iterable[Row]) -> None:
    table = Table("shape", "m", "contender", "ms", "p10", "iqr", "ratio", "GB/s", "stream", "GFLOP/s", "n", "served by",
                  "asked", "note")  # fmt: skip
    for column in table.columns:
        column.no_wrap = True
    for index in (1, 3, 4, 5, 6, 7, 8, 9, 10):
        table.columns[index].justify = "right"
    last = None
    for row in rows:
        here = (problem_text(row.problem), row.problem.get("m"))
        if last is not None and here != last:
            table.add_section()
        shown = (here[0], str(here[1] or "")) if here != last else ("", "")
        last = here
        if row.error:
            table.add_row(*shown, row.contender, "[red]REFUSED[/red]", *[""] * 8, row.error)
            continue
        table.add_row(
            *shown, row.contender, f"{row.median_ms:.3f}", f"{row.low_ms:.3f}", f"{row.spread_ms:.3f}",
            f"{row.ratio:.2f}", f"{row.gbps:.1f}", f"{100 * row.stream_share:.0f} %",
            f"{row.gflops:.0f}" if row.gflops else "", str(row.rounds), row.served_by,
            "\n".join(map(verdict_text, row.verdicts)), row.note,
        )  # fmt: skip
    console.print(table)


def print_targets(console: Console, rows: Iterable[Row]) -> None:
    table = Table("op", "shape", "m", "contender", "against", "asked", "reached", "", title="targets")
    for index in (2, 5, 6):
        table.columns[index].justify = "right"
    passed = total = 0
    for row in rows:
        for verdict in row.verdicts:
            passed, total = passed + verdict.passed, total + 1
            table.add_row(
                row.op, problem_text(row.problem), str(row.problem.get("m", "")), row.contender, verdict.against,
                f"{verdict.asked:g}", f"{verdict.reached:.2f}", "pass" if verdict.passed else "[red]MISS[/red]",
            )  # fmt: skip
    if total:
        console.print(table)
        console.print(f"{passed} of {total} targets reached")
