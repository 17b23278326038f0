"""`nn.Linear` over a 2:4 weight."""

from ..formats.sparse24 import Sparse24Weight
from .bitmap_linear import BitmapLinear


class Sparse24Linear(BitmapLinear):
    """A `BitmapLinear` that stores exactly 2 of every 4 columns."""

    # On the CPU it runs the bitmap op: 2:4 and a 50 % bitmap cost the same bytes, and the expansion is not what limits.
    FORMAT = Sparse24Weight
