"""`python -m bench.gpu`: the ops that have GPU kernels against their baselines on this machine's GPU.

Same rules as `python -m bench`: a wrong contender is refused, contenders take turns, weights are rotated past the
cache. Calls are captured in CUDA graphs. Prints a short table of the targets last; JSON and one HTML page go to
bench/results/<device>/.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from . import table
from .gpu_machine import environment
from .gpu_timing import race_graphs
from .harness import Row, run
from .problems import GPU_TOKENS, QUICK_SHAPES, QUICK_TOKENS, SHAPES, Request

HERE = Path(__file__).parent
OPS = (
    "dual_shift_linear", "bitmap_linear", "bitmap_dual_shift_linear", "sparse24_linear", "tiered_linear", "csr_linear",
    "low_rank_linear", "sinkhorn", "obs_sweep", "masks",
)  # fmt: skip


def device_folder() -> str:
    """The folder name of this GPU's results: nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=OPS, default=OPS, metavar="OP", help=f"some of {', '.join(OPS)}")
    parser.add_argument("--quick", action="store_true", help="one shape, few tokens, 10 rounds")
    parser.add_argument("--tokens", nargs="+", type=int, metavar="M", help=f"instead of {GPU_TOKENS}")
    parser.add_argument("--budget", type=float, default=2.0, help="timed seconds per case")
    parser.add_argument("--output", type=Path, help="results folder")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU; `python -m bench` measures the CPU kernels")
    return options


def main() -> int:
    options = arguments()
    console = Console(width=table.WIDTH)
    output = options.output or HERE / "results" / device_folder()
    output.mkdir(parents=True, exist_ok=True)
    shapes = QUICK_SHAPES if options.quick else SHAPES
    request = Request(shapes, tuple(options.tokens or (QUICK_TOKENS if options.quick else GPU_TOKENS)), options.quick)
    facts = environment()
    console.print(table.environment_line(facts))
    rows: list[Row] = []
    for op in options.only:
        rows += bench_op(op, request, options, output, facts, console)
    table.print_targets(console, rows)
    from .page import write_page

    console.print(f"written: {output}/*.json, {write_page(output)}")
    refused = [row for row in rows if row.error]
    for row in refused:
        console.print(f"[red]refused:[/red] {row.contender} {table.problem_text(row.problem)}: {row.error}")
    return 1 if refused else 0


def bench_op(
    op: str, request: Request, options: argparse.Namespace, output: Path, facts: dict[str, Any], console: Console
) -> list[Row]:
    module = importlib.import_module(f"bench.bench_{op}")
    rows = run(
        module.gpu_cases(request), rounds=10 if options.quick else 30, budget_s=options.budget, timer=race_graphs,
        report=lambda row: console.print(table.progress_line(row), style="dim", markup=False, highlight=False),
    )  # fmt: skip
    for row in rows:
        row.stream_share = row.gbps / facts["stream_gbps"]
    result = {"op": op, "about": " ".join(module.__doc__.split()), "environment": facts}
    result["rows"] = [row.to_dict() for row in rows]
    (output / f"{op}.json").write_text(json.dumps(result, indent=1, allow_nan=True) + "\n", "utf-8")
    return rows


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
