"""Drop-in replacements of `nn.Linear` over packed weights."""

from ._base import PackedLinear
from .bitmap_dual_shift_linear import BitmapDualShiftLinear
from .bitmap_linear import BitmapLinear
from .csr_linear import CsrLinear
from .dual_shift_linear import DualShiftLinear
from .low_rank_linear import LowRankLinear
from .permuted_linear import PermutedLinear
from .sparse24_dual_shift_linear import Sparse24DualShiftLinear
from .sparse24_linear import Sparse24Linear
from .tiered_linear import TieredLinear

__all__ = [
    "BitmapDualShiftLinear",
    "BitmapLinear",
    "CsrLinear",
    "DualShiftLinear",
    "LowRankLinear",
    "PackedLinear",
    "PermutedLinear",
    "Sparse24DualShiftLinear",
    "Sparse24Linear",
    "TieredLinear",
]
