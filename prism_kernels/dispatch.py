"""Which backend serves (op, device, m), in one place; `explain()` says which and why.

Two decisions are made here. Which implementation fills an op's slot is settled when libraries load: a compiled kernel
where one exists, otherwise the torch reference. Whether a linear runs fused or decodes its weight once and calls the
dense GEMM depends on m, the number of tokens, by measured crossovers (`crossovers.json`, written by `make bench`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ._extension import STATUS
from .ops._define import OP_NAMES

_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


@dataclass(frozen=True)
class Served:
    """One row of `python -m prism_kernels`."""

    op: str
    device: str
    backend: str
    reason: str


def has_compiled(op: str, device: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"prism::{op}", _KEYS[device])


def cpu_isa() -> str:
    """The instruction set of the compiled CPU kernels, or "reference" where none are loaded."""
    return torch.ops.prism._active_isa() if STATUS["_C"] == "loaded" else "reference"


def force_isa(name: str) -> str:
    """Runs all CPU kernels under `name` (generic, avx2, avx512, avx512_bf16; "auto" = the best) from now on.

    For tests and benchmarks; users set PRISM_CPU_ISA. Raises RuntimeError for an unknown or unsupported name.
    """
    if STATUS["_C"] != "loaded":
        raise RuntimeError(f"force_isa: needs the compiled CPU library, which is {STATUS['_C']}")
    forced = torch.ops.prism._force_isa(name)
    _refresh_crossovers()
    return forced


def last_kernel() -> str:
    """`op:isa` of the last compiled CPU kernel that this thread called."""
    return torch.ops.prism._last_kernel() if STATUS["_C"] == "loaded" else ""


# (op, device) -> smallest m at which decode-then-GEMM is faster than the fused kernel. A plain dict, because
# torch.compile traces the look-up; ops without a compiled kernel are absent: their reference decodes anyway.
_crossovers: dict[tuple[str, str], int] = {}
#: What "never" in the table means here: more tokens than any call has, and still an int64 when multiplied by k.
_NEVER = 2**31


def _refresh_crossovers() -> None:
    table = json.loads((Path(__file__).parent / "crossovers.json").read_text())["crossovers"]
    _crossovers.clear()
    for device, row in (("cpu", cpu_isa()), ("cuda", "cuda")):
        for op in OP_NAMES:
            if op.endswith("_linear") and has_compiled(op, device):
                measured = table[row][op]
                _crossovers[op, device] = _NEVER if measured == "never" else measured


def crossover(op: str, device: str) -> int:
    """Smallest m (tokens) at which `op` decodes its weight and calls the dense GEMM on `device`; 2**31 for never."""
    return _crossovers.get((op, device), 1)


def prefers_dense(op: str, x: torch.Tensor) -> bool:
    """Whether `op` on activations x [..., k] decodes its weight and calls the dense GEMM."""
    return x.numel() >= crossover(op, x.device.type) * x.shape[-1]


def explain(op: str | None = None) -> list[Served]:
    """What serves each op (or one) on each device of this machine, and why."""
    if op is not None and op not in OP_NAMES:
        raise ValueError(f"explain: op must be one of {', '.join(OP_NAMES)}, got {op!r}")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for name in [op] if op else OP_NAMES:
        for device in devices:
            library = "_C" if device == "cpu" else "_C_cuda"
            if not has_compiled(name, device):
                reason = f"{library} {STATUS[library]}" if STATUS[library] != "loaded" else f"no kernel in {library}"
                rows.append(Served(name, device, "torch reference", reason))
                continue
            backend = f"C++ {cpu_isa()}" if device == "cpu" else "CUDA C++"
            rows.append(Served(name, device, backend, _crossover_note(name, device)))
    return rows


def _crossover_note(op: str, device: str) -> str:
    if not op.endswith("_linear"):
        return "compiled"
    m = crossover(op, device)
    return "fused for every m" if m == _NEVER else f"fused below m = {m}, decode + dense GEMM from there on"


_refresh_crossovers()
