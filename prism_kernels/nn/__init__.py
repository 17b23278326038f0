"""Drop-in replacements of `nn.Linear` over packed weights."""

from ._base import PackedLinear
from .dual_shift_linear import DualShiftLinear

__all__ = ["DualShiftLinear", "PackedLinear"]
