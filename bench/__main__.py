"""`python -m bench`: times each op against its baselines, prints a table, writes JSON.

An op whose tests are red is not timed: a fast wrong kernel is no result.
"""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .harness import Results, Row, environment, run

HERE = Path(__file__).parent
OPS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def tests_pass(op: str) -> bool:
    test = HERE.parent / "tests" / "ops" / f"test_{op}.py"
    return (
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(test)], stdout=subprocess.DEVNULL).returncode
        == 0
    )


def print_table(console: Console, rows: list[Row]) -> None:
    table = Table("op", "shape", "m", "contender", "median ms", "spread", "x baseline", "GB/s", "served by")
    for row in rows:
        problem = row.problem
        table.add_row(
            row.op, f"{problem['n']}x{problem['k']}", str(problem.get("m", "")), row.contender, f"{row.median_ms:.3f}",
            f"{row.spread_ms:.3f}", f"{row.ratio:.2f}", f"{row.gigabytes_per_second:.1f}", row.served_by,
        )  # fmt: skip
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=OPS, default=OPS, metavar="OP", help=f"some of {', '.join(OPS)}")
    parser.add_argument("--quick", action="store_true", help="one shape, few tokens")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds per case")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "latest.json")
    parser.add_argument(
        "--crossovers", action="store_true", help="measure and write prism_kernels/crossovers.json, then stop"
    )
    options = parser.parse_args()
    console = Console()
    if options.crossovers:
        from .crossovers import update

        update(console.print)
        return 0
    results, red = Results(environment=environment()), []
    for op in options.only:
        console.print(f"[bold]{op}[/bold]: testing, then timing")
        if not tests_pass(op):
            console.print(f"  [red]tests/ops/test_{op}.py is red: not timed[/red]")
            red.append(op)
            continue
        cases = importlib.import_module(f"bench.bench_{op}").cases(options.quick)
        results.rows += run(
            cases, repeats=options.repeats, budget_s=options.budget,
            report=lambda r: console.print(f"  {r.problem} {r.contender}: {r.median_ms:.3f} ms, {r.ratio:.2f}x"),
        )  # fmt: skip
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results.to_dict(), indent=1) + "\n")  # kept if a later op fails
    print_table(console, results.rows)
    console.print(f"written: {options.output}")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
