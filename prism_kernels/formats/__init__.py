"""Storage formats: frozen dataclasses of device-neutral tensors."""

from ._base import FormatError, PackedWeight
from .bitmap import BitmapWeight
from .bitmap_dual_shift import BitmapDualShiftWeight

__all__ = ["BitmapDualShiftWeight", "BitmapWeight", "FormatError", "PackedWeight"]
