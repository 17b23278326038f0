"""Storage formats: frozen dataclasses of device-neutral tensors."""

from ._base import FormatError, PackedWeight
from .dual_shift import DualShiftWeight

__all__ = ["DualShiftWeight", "FormatError", "PackedWeight"]
