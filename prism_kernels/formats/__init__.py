"""Storage formats: frozen dataclasses of device-neutral tensors."""

from ._base import FormatError, PackedWeight
from .bitmap import BitmapWeight
from .bitmap_dual_shift import BitmapDualShiftWeight
from .csr import CsrWeight
from .dual_shift import DualShiftWeight
from .low_rank import LowRankWeight
from .permuted import PermutedWeight
from .sparse24 import Sparse24Weight
from .sparse24_dual_shift import Sparse24DualShiftWeight
from .tiered import TieredWeight

__all__ = [
    "BitmapDualShiftWeight",
    "BitmapWeight",
    "CsrWeight",
    "DualShiftWeight",
    "FormatError",
    "LowRankWeight",
    "PackedWeight",
    "PermutedWeight",
    "Sparse24DualShiftWeight",
    "Sparse24Weight",
    "TieredWeight",
]
