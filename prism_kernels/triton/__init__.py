"""Triton kernels: `<op>.py` holds an op's kernel and its launcher, a function named as the op that takes its arguments.

They read the canonical panels (`reference/panels.py`) and serve on a GPU where no compiled CUDA kernel does, or where
the table of `crossovers.json` prefers them (`dispatch`). Features of Triton 3.6 and 3.9 alone; no inline assembly, so
that Triton's interpreter runs every kernel on a CPU. The tensor cores' 2:4 instructions cannot be expressed in Triton.

Importing this module does not import triton; the first call of a kernel does.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Ops with a Triton kernel, by the files of this folder.
OPS: tuple[str, ...] = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def kernel(op: str) -> Callable[..., Any]:
    """The launcher of `op`. A triton that does not import raises here, at the first call."""
    return getattr(importlib.import_module(f"{__name__}.{op}"), op)
