"""Finds, per instruction set, the number of tokens from which decode-then-GEMM beats a fused linear, and ships it."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import prism_kernels
from prism_kernels import dispatch
from prism_kernels import nn as packed_nn
from prism_kernels._extension import host
from prism_kernels.nn import PackedLinear
from prism_kernels.ops._define import OP_NAMES

from .bench_tiered_linear import tier_mask
from .harness import Case, Contender, measure
from .machine import cpu_name, load_average
from .problems import GROUP_SIZE, random_mask, random_weight
from .verify import linear_of

N, K = 4096, 4096
TOKENS = (2, 4, 8, 16, 32, 64, 96, 128, 256, 512)
NEVER = "never"
#: Inside this margin the fused path wins: it needs no dense buffer.
MARGIN = 1.05
TABLE = Path(prism_kernels.__file__).parent / "crossovers.json"
_INT4 = {"bits": 4, "group_size": GROUP_SIZE}


def module_classes() -> dict[str, type[PackedLinear]]:
    """The module of every linear op, by the name of the op."""
    found: dict[str, type[PackedLinear]] = {}
    for name in packed_nn.__all__:
        kind = getattr(packed_nn, name)
        if kind is not PackedLinear:
            found.setdefault(kind._op(), kind)  # formats that are special cases of another share its op
    return found


def modules() -> dict[str, PackedLinear]:
    """One packed weight [N, K] per linear op: 50 % where sparse, 4 bit where quantized, rank K / 8."""
    generator = torch.Generator().manual_seed(0)
    weight = random_weight(N, K, generator)
    masks = {"dual_shift_linear": None, "tiered_linear": tier_mask(N, K, generator)}
    half = random_mask(N, K, generator)
    built = {}
    for op, kind in module_classes().items():
        if op == "low_rank_linear":  # from its factors: the singular values of a random matrix take minutes
            a, b = random_weight(K // 8, K, generator), random_weight(N, K // 8, generator)
            built[op] = kind(kind.FORMAT(a, b))  # type: ignore[call-arg]
            continue
        mask = masks.get(op, half)
        pruned = weight if mask is None else weight * mask
        built[op] = kind.from_linear(linear_of(pruned), mask, **(_INT4 if "dual_shift" in op else {}))
    return built


def crossover(op: str, module: PackedLinear) -> int | str:
    """Smallest m of TOKENS from which on the dense path is faster, "never" where it is at none."""

    def forced(m: int, x: torch.Tensor) -> Callable[[], torch.Tensor]:
        """`module` on x with a crossover at m."""

        def call() -> torch.Tensor:
            dispatch._crossovers[op, "cpu"] = m
            return module(x)

        return call

    crossed: int | str = NEVER
    for m in reversed(TOKENS):  # from the far end: a small m at which the dense path wins by luck changes nothing
        x = torch.randn(m, K).bfloat16()
        contenders = [
            Contender("dense path", [forced(1, x)], module.nbytes),
            Contender("fused", [forced(dispatch._NEVER, x)], module.nbytes),
        ]
        dense, fused = measure(Case(op, {"n": N, "k": K, "m": m}, contenders), rounds=11, budget_s=4.0)
        if fused.median_ms <= MARGIN * dense.median_ms:
            return crossed
        crossed = m
    return crossed


def update(report: Callable[[str], None]) -> None:
    """Measures every instruction set of this CPU and writes crossovers.json; rows of others stay as they are."""
    table = json.loads(TABLE.read_text("utf-8"))
    built = modules()
    load = load_average()
    for isa in host.supported_isas():
        dispatch.force_isa(isa)
        for op, module in built.items():
            if not dispatch.has_compiled(op, "cpu"):
                report(f"{isa:>12} {op:<28} not compiled: left as it was")
                continue
            found = table["crossovers"][isa][op] = crossover(op, module)
            report(f"{isa:>12} {op:<28} dense from m = {found}")
    dispatch.force_isa("auto")
    on_cpu = [op for op in OP_NAMES if op.endswith("_linear") and dispatch.has_compiled(op, "cpu")]
    missing = [op for op in on_cpu if op not in built]
    if missing:
        raise RuntimeError(f"crossovers: every linear op must have a module, got none for {', '.join(missing)}")
    table["measured"] = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {cpu_name()}, {torch.get_num_threads()} threads, load average "
        f"{load}, torch {torch.__version__}, {N}x{K} bf16, 50 % sparsity, 4 bit, g = {GROUP_SIZE}; "
        "cuda, triton, gpu_backends: not measured, calculated where not 1"
    )
    TABLE.write_text(json.dumps(table, indent=2) + "\n", "utf-8")
