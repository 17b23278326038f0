"""Finds, per instruction set, the number of tokens from which decode-then-GEMM beats a fused linear, and ships it."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import prism_kernels
from prism_kernels import dispatch
from prism_kernels._extension import host
from prism_kernels.formats import BitmapDualShiftWeight, BitmapWeight, DualShiftWeight
from prism_kernels.nn import BitmapDualShiftLinear, BitmapLinear, DualShiftLinear
from prism_kernels.nn._base import TILE_BYTES

from .harness import Case, Contender, cpu_name, measure
from .linears import random_mask
from .problems import GROUP_SIZE

N, K = 4096, 4096
TOKENS = (2, 4, 8, 16, 32, 64, 96, 128)
TABLE = Path(prism_kernels.__file__).parent / "crossovers.json"


def modules() -> dict[str, torch.nn.Module]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(N, K, generator=generator).mul_(0.02).to(torch.bfloat16)
    mask = random_mask(N, K, generator)
    options = {"bits": 4, "group_size": GROUP_SIZE, "column_scale": "rms"}
    return {
        "dual_shift_linear": DualShiftLinear(DualShiftWeight.pack(weight, **options)),
        "bitmap_linear": BitmapLinear(BitmapWeight.pack(weight, mask)),
        "bitmap_dual_shift_linear": BitmapDualShiftLinear(BitmapDualShiftWeight.pack(weight, mask, **options)),
    }


def crossover(op: str, module: torch.nn.Module) -> int:
    """Smallest m of TOKENS from which on the dense path is faster; one past the last where it never is."""
    fused_wins = 0
    for m in TOKENS:
        x = torch.randn(m, K).to(torch.bfloat16)
        rows = TILE_BYTES // (K * x.element_size())
        contenders = [
            Contender("dense", [lambda x=x, rows=rows: module._tiled(x, rows)], 0),
            Contender("prism fused", [lambda x=x: module.fused(x)], 0),
        ]
        dense, fused = measure(Case(op, {"m": m}, contenders), repeats=9, budget_s=4.0)
        if fused.median_ms > 1.1 * dense.median_ms:  # inside 10 % the fused path wins: it needs no dense buffer
            return m
        fused_wins = m
    return 2 * fused_wins


def update(report: Callable[[str], None]) -> None:
    """Measures every instruction set of this CPU and writes crossovers.json; rows of others stay as they are."""
    table = json.loads(TABLE.read_text())
    built = modules()
    for isa in host.supported_isas():
        dispatch.force_isa(isa)
        for op, module in built.items():
            table["crossovers"][isa][op] = crossover(op, module)
            report(f"{isa:>12} {op:<26} dense from m = {table['crossovers'][isa][op]}")
    dispatch.force_isa("auto")
    table["measured"] = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {cpu_name()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {N}x{K} bf16, 50 % sparsity, 4 bit, g = {GROUP_SIZE}; cuda: not measured"
    )
    TABLE.write_text(json.dumps(table, indent=2) + "\n")
