"""Loads the compiled libraries and remembers what happened, so that a missing one is visible and a broken one raises.

`_C` (CPU ops) and `_C_cuda` (CUDA ops, only where a GPU is) register themselves on import; `_host` is a torch-free
module with facts about the machine. A library that was not built means the next backend serves. A library that is there
but does not load raises: a silent fallback would hide a broken install behind slow results. Triton is only looked for
here; its first kernel imports it (`prism_kernels.triton.kernel`), and raises where it is broken.
"""

import importlib
import os
from pathlib import Path
from types import ModuleType

import torch

from . import triton

_PACKAGE = Path(__file__).parent
_BACKENDS = ("auto", "triton", "torch")

#: What became of each library: "loaded" or the reason why it is not.
STATUS: dict[str, str] = {}


def requested_backend() -> str:
    """PRISM_BACKEND: `auto` (compiled kernels, then Triton's, then references), `triton` (Triton kernels, then
    references) or `torch` (references only)."""
    name = os.environ.get("PRISM_BACKEND", "auto")
    if name not in _BACKENDS:
        raise ValueError(f"PRISM_BACKEND must be one of {', '.join(_BACKENDS)}, got {name!r}")
    return name


def _load(name: str) -> ModuleType | None:
    if not any(_PACKAGE.glob(f"{name}.*.so")) and not any(_PACKAGE.glob(f"{name}.*.pyd")):
        STATUS[name] = "not built (pure-Python install)"
        return None
    module = importlib.import_module(f"prism_kernels.{name}")
    STATUS[name] = "loaded"
    return module


def load_libraries() -> ModuleType | None:
    """Loads what this machine can use; returns `_host` or None."""
    host = _load("_host")
    backend = requested_backend()
    # torch.cuda.is_available() asks the driver library only; it creates no context on a machine without a GPU.
    gpu = torch.version.cuda is not None and torch.cuda.is_available()
    if backend == "torch":
        STATUS["triton"] = "skipped (PRISM_BACKEND=torch)"
    elif not triton.is_installed():
        STATUS["triton"] = "not installed"
    else:
        STATUS["triton"] = "installed" if gpu else "installed, not used (no GPU)"
    if backend != "auto":
        STATUS["_C"] = STATUS["_C_cuda"] = f"skipped (PRISM_BACKEND={backend})"
        return host
    _load("_C")
    if gpu:
        _load("_C_cuda")
    else:
        built = any(_PACKAGE.glob("_C_cuda.*.so"))
        STATUS["_C_cuda"] = f"{'built' if built else 'not built'}, not loaded (no GPU)"
    return host


host = load_libraries()
