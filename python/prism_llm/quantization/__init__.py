"""Rounding of weights to codes, and the storage format that fits what was done to a weight."""

from .hqq import refine_zeros
from .packing import pack_pruned, pack_rounded, round_to_nearest
from .scales import SearchError, find_column_scale, searched_column_scale, tiled_column_scale

__all__ = [
    "SearchError",
    "find_column_scale",
    "pack_pruned",
    "pack_rounded",
    "refine_zeros",
    "round_to_nearest",
    "searched_column_scale",
    "tiled_column_scale",
]
