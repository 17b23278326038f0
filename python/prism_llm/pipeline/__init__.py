"""Compression of whole models: recipes, presets, and the block-by-block engine."""

from .api import CompressionResult, compress, compress_
from .presets import PRESETS
from .recipe import Recipe, as_recipe
from .report import CompressionReport, LinearReport

__all__ = [
    "PRESETS",
    "CompressionReport",
    "CompressionResult",
    "LinearReport",
    "Recipe",
    "as_recipe",
    "compress",
    "compress_",
]
