"""Compression of language models: pruning, quantization, and both in one layer, over the kernels of `prism_kernels`.

`compress_` works in place on a transformers model, `compress` on a copy or, block by block, on a checkpoint; a `Recipe`
says what happens; `load` reads what was written. Names are imported on first use, so that the package imports quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import load
    from .pipeline import CompressionReport, CompressionResult, Recipe, compress, compress_

__version__ = "0.1.0"
__all__ = ["CompressionReport", "CompressionResult", "Recipe", "__version__", "compress", "compress_", "load"]

_HOMES = {
    "CompressionReport": "pipeline",
    "CompressionResult": "pipeline",
    "Recipe": "pipeline",
    "compress": "pipeline",
    "compress_": "pipeline",
    "load": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
