"""`nn.Linear` over a 2:4 weight with dual-shift codes."""

from ..formats.sparse24_dual_shift import Sparse24DualShiftWeight
from .bitmap_dual_shift_linear import BitmapDualShiftLinear


class Sparse24DualShiftLinear(BitmapDualShiftLinear):
    """A `BitmapDualShiftLinear` that stores exactly 2 of every 4 columns."""

    # On the CPU it runs the bitmap op: 2:4 and a 50 % bitmap cost the same bytes, and the expansion is not what limits.
    FORMAT = Sparse24DualShiftWeight
