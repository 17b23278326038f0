"""Which backend serves (op, device, m), in one place; `explain()` says which and why.

Two decisions are made here. Which implementation fills an op's slot is settled once, when libraries load: a compiled
kernel where one exists, on a GPU otherwise the Triton kernel, otherwise the torch reference; and where both GPU kernels
exist, the one that measurements prefer (`gpu_backends` of `crossovers.json`, written by `python -m
bench.gpu_backends`), CUDA C++ where nothing was measured. Whether a linear runs fused or decodes its weight once and
calls the dense GEMM depends on m, the number of tokens, by measured crossovers (`crossovers.json`, written by `make
bench`).
"""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import triton
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


def has_kernel(op: str, device: str) -> bool:
    """Whether anything but the reference serves `op` on `device`."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"prism::{op}", _KEYS[device])


def has_compiled(op: str, device: str) -> bool:
    """Whether a kernel of the compiled libraries serves `op` on `device`."""
    return has_kernel(op, device) and not (device == "cuda" and op in _triton_serves)


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


_TABLE = json.loads((Path(__file__).parent / "crossovers.json").read_text())


def choose_triton(op: str, compiled: bool, measured: Mapping[str, str]) -> bool:
    """Whether the Triton kernel of `op` serves on a GPU. compiled = a CUDA C++ kernel fills the slot already; measured
    = `gpu_backends` of the shipped table, "cuda" or "triton" by op."""
    return op in triton.OPS and (not compiled or measured.get(op, "cuda") == "triton")


#: Ops whose CUDA slot holds the Triton kernel, and why.
_triton_serves: dict[str, str] = {}
_library = torch.library.Library("prism", "IMPL")


def _register_triton() -> None:
    """Gives the Triton kernels their slots, once. The one place that may fill a filled slot: a compiled kernel that is
    measured to be slower makes room. torch would let any later registration win without a word."""
    for op in OP_NAMES:
        compiled = has_compiled(op, "cuda")
        if not choose_triton(op, compiled, _TABLE["gpu_backends"]):
            continue
        if op in _triton_serves:
            raise RuntimeError(f"dispatch: the Triton kernel of {op} must be registered once, got a second time")
        with warnings.catch_warnings():  # torch warns of a replaced kernel: here it is a decision
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
            _library.impl(op, _late_kernel(op), "CUDA")
        _triton_serves[op] = "measured to be faster than CUDA C++" if compiled else _without_compiled("cuda")


def _without_compiled(device: str) -> str:
    library = "_C" if device == "cpu" else "_C_cuda"
    return f"{library} {STATUS[library]}" if STATUS[library] != "loaded" else f"no kernel in {library}"


def _late_kernel(op: str):
    return lambda *arguments: triton.kernel(op)(*arguments)


class _OnTriton(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("prism::")
        if name == func._schema.name or name not in triton.OPS:
            return func(*args, **(kwargs or {}))
        return triton.kernel(name)(*args, **(kwargs or {}))


@contextlib.contextmanager
def on_triton() -> Iterator[None]:
    """Inside, ops that have a Triton kernel run it, whatever fills their slot: to compare backends in one process.

    For tests and benchmarks; a call takes longer on the CPU, not on the GPU. Users set PRISM_BACKEND.
    """
    with _OnTriton():
        yield


# (op, device) -> smallest m at which decode-then-GEMM is faster than the fused kernel. A plain dict, because
# torch.compile traces the look-up; ops without a compiled kernel are absent: their reference decodes anyway.
_crossovers: dict[tuple[str, str], int] = {}
# The same of float32 activations where they have their own: compiled GPU kernels multiply them outside tensor cores.
_float32_crossovers: dict[tuple[str, str], int] = {}
#: What "never" in the table means here: more tokens than any call has, and still an int64 when multiplied by k.
_NEVER = 2**31


def _refresh_crossovers() -> None:
    _crossovers.clear()
    _float32_crossovers.clear()
    for device in _KEYS:
        for op in OP_NAMES:
            if op.endswith("_linear") and has_kernel(op, device):
                row = cpu_isa() if device == "cpu" else "triton" if op in _triton_serves else "cuda"
                measured = _TABLE["crossovers"][row][op]
                _crossovers[op, device] = _NEVER if measured == "never" else measured
                if row == "cuda" and op in _TABLE["cuda_float32"]:
                    _float32_crossovers[op, device] = _TABLE["cuda_float32"][op]


def crossover(op: str, device: str) -> int:
    """Smallest m (tokens) at which `op` decodes its weight and calls the dense GEMM on `device`; 2**31 for never.
    Of 16-bit activations on a GPU: `cuda_float32` of the table holds those of float32."""
    return _crossovers.get((op, device), 1)


def prefers_dense(op: str, x: torch.Tensor) -> bool:
    """Whether `op` on activations x [..., k] decodes its weight and calls the dense GEMM."""
    key = (op, x.device.type)
    if x.dtype == torch.float32 and key in _float32_crossovers:
        return x.numel() >= _float32_crossovers[key] * x.shape[-1]
    return x.numel() >= crossover(*key) * x.shape[-1]


def cusparselt_crossover(op: str) -> int:
    """Smallest m (tokens) at which cuSPARSELt multiplies instead of `op` and of the dense GEMM on a GPU; 2**31 for
    never. The table says whether it was measured."""
    tokens = _TABLE["cusparselt"]["crossovers"].get(op, "never")
    return _NEVER if tokens == "never" else tokens


def uses_cusparselt(op: str) -> bool:
    """Whether any number of tokens goes to cuSPARSELt, so that it is worth a second copy of the weight."""
    return cusparselt_crossover(op) < _NEVER


def prefers_cusparselt(op: str, x: torch.Tensor) -> bool:
    """Whether activations x [..., k] go to cuSPARSELt, where the weight has its order."""
    return x.numel() >= cusparselt_crossover(op) * x.shape[-1]


def explain(op: str | None = None) -> list[Served]:
    """What serves each op (or one) on each device of this machine, and why."""
    if op is not None and op not in OP_NAMES:
        raise ValueError(f"explain: op must be one of {', '.join(OP_NAMES)}, got {op!r}")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    rows = []
    for name in [op] if op else OP_NAMES:
        for device in devices:
            if device == "cuda" and name in _triton_serves:
                rows.append(Served(name, device, "Triton", _crossover_note(name, device, _triton_serves[name])))
            elif has_compiled(name, device):
                backend = f"C++ {cpu_isa()}" if device == "cpu" else "CUDA C++"
                rows.append(Served(name, device, backend, _crossover_note(name, device)))
            else:
                missing = _without_compiled(device)
                if device == "cuda":
                    missing += f", Triton {STATUS['triton']}" if name in triton.OPS else ", no Triton kernel"
                rows.append(Served(name, device, "torch reference", missing))
    return rows


def _crossover_note(op: str, device: str, reason: str = "compiled") -> str:
    if not op.endswith("_linear"):
        return reason
    m = crossover(op, device)
    note = "fused for every m" if m == _NEVER else f"fused below m = {m}, decode + dense GEMM from there on"
    if device == "cuda" and uses_cusparselt(op):
        note += f", cuSPARSELt from m = {cusparselt_crossover(op)} ({_TABLE['cusparselt']['measured']})"
        note += ", by a second copy of the weight from the first such call on (`Sparse24Linear.cusparselt`)"
    return note if reason == "compiled" else f"{reason}; {note}"


if STATUS["triton"] == "installed":
    _register_triton()


_refresh_crossovers()
