"""`python -m bench`: times each op against its baselines; prints tables, writes JSON and one HTML page with rooflines.

Every contender is checked against the float64 reference before it is timed; one that fails is printed as REFUSED, and
the exit code is 1. Results go to bench/results/<device>/<op>.json; a forced instruction set or number of threads is
part of the file name. Of whole models: `python -m bench.bench_model` and `python -m bench.bench_compression`.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from prism_kernels import dispatch

from . import table
from .harness import Row, run
from .machine import device_folder, environment, stream_bandwidth
from .problems import QUICK_SHAPES, QUICK_TOKENS, SHAPES, TOKENS, Request, shape_name

#: With more of a core busy elsewhere, threads wait for one another in ticks of the scheduler, whatever they run.
BUSY_CORES = 0.1
HERE = Path(__file__).parent
_OF_MODELS = ("bench_model", "bench_compression")  # commands of their own
OPS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py") if path.stem not in _OF_MODELS)


def parse_shape(text: str) -> tuple[int, int]:
    """ "4096x14336" or the name of a shape."""
    if text in SHAPES:
        return SHAPES[text]
    try:
        n, k = (int(extent) for extent in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be NxK or one of {', '.join(SHAPES)}, got {text!r}") from None
    if n < 64 or k < 64 or n % 16 or k % 64:
        raise argparse.ArgumentTypeError(f"must have n a multiple of 16, k of 64, both at least 64, got {text!r}")
    return n, k


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=OPS, default=OPS, metavar="OP", help=f"some of {', '.join(OPS)}")
    parser.add_argument("--quick", action="store_true", help="one shape, few tokens, 10 rounds")
    parser.add_argument("--shapes", nargs="+", type=parse_shape, metavar="NxK", help="instead of the three of Llama 8B")
    parser.add_argument("--tokens", nargs="+", type=int, metavar="M", help=f"instead of {' '.join(map(str, TOKENS))}")
    parser.add_argument("--isa", help="force an instruction set: generic, avx2, avx512, avx512_bf16")
    parser.add_argument("--threads", type=int, help="instead of all cores")
    parser.add_argument("--rounds", type=int, help="timed calls of each contender, 30 by default")
    parser.add_argument("--budget", type=float, default=30.0, help="timed seconds per case")
    parser.add_argument("--output", type=Path, default=HERE / "results" / device_folder(), help="results folder")
    parser.add_argument("--crossovers", action="store_true", help="only write prism_kernels/crossovers.json")
    parser.add_argument("--page", action="store_true", help="only write index.html from the results that are there")
    options = parser.parse_args()
    if options.tokens and min(options.tokens) < 1:
        parser.error(f"--tokens: must be at least 1, got {min(options.tokens)}")
    return options


def request_of(options: argparse.Namespace) -> Request:
    shapes = QUICK_SHAPES if options.quick else SHAPES
    if options.shapes:
        shapes = {shape_name(*shape): shape for shape in options.shapes}
    tokens = tuple(options.tokens or (QUICK_TOKENS if options.quick else TOKENS))
    return Request(shapes, tokens, options.quick)


def bench_op(op: str, options: argparse.Namespace, console: Console) -> list[Row]:
    facts = environment()
    console.print(f"[bold]{op}[/bold]: {table.environment_line(facts)}")
    if facts["competing_cores"] > BUSY_CORES:
        busy = f"other work keeps {facts['competing_cores']} cores busy"
        console.print(f"[red]{busy}: these times are not to be quoted[/red]")
    module = importlib.import_module(f"bench.bench_{op}")
    rows = run(
        module.cases(request_of(options)), rounds=options.rounds or (10 if options.quick else 30),
        budget_s=options.budget,
        report=lambda row: console.print(table.progress_line(row), style="dim", markup=False, highlight=False),
    )  # fmt: skip
    # On a shared machine the roof moves too: the higher of what was read before and after.
    facts["stream_gbps"] = max(facts["stream_gbps"], round(stream_bandwidth(), 1))
    for row in rows:
        row.stream_share = row.gbps / facts["stream_gbps"]
    result = {"op": op, "about": " ".join(module.__doc__.split()), "environment": facts}
    write(options, op, result | {"rows": [row.to_dict() for row in rows]})
    table.print_rows(console, rows)
    return rows


def write(options: argparse.Namespace, op: str, result: dict[str, Any]) -> None:
    forced = [options.isa] if options.isa else []
    forced += [f"{options.threads}-threads"] if options.threads else []
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / ".".join([op, *forced, "json"])
    path.write_text(json.dumps(result, indent=1, allow_nan=True) + "\n", "utf-8")


def main() -> int:
    options = arguments()
    console = Console(width=table.WIDTH)  # a terminal wraps what a narrower table would cut off
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.isa:
        dispatch.force_isa(options.isa)
    if options.crossovers:
        from .crossovers import update

        update(console.print)
        return 0
    rows: list[Row] = []
    if not options.page:
        for op in options.only:
            rows += bench_op(op, options, console)
        table.print_targets(console, rows)
    from .page import write_page

    console.print(f"written: {options.output}/*.json, {write_page(options.output)}")
    refused = [row for row in rows if row.error]
    if refused:
        console.print(f"[red]{len(refused)} refused: wrong results are not timed[/red]")
    return 1 if refused else 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
