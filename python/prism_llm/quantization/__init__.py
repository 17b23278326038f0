"""Rounding of weights to codes, and the storage format that fits what was done to a weight."""

from .packing import pack_pruned, pack_rounded, round_to_nearest

__all__ = ["pack_pruned", "pack_rounded", "round_to_nearest"]
