"""The public op functions. Each module here holds one op's schema, fake, argument checks and public function."""

from .bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize
from .bitmap_dual_shift_linear import bitmap_dual_shift_linear
from .bitmap_dual_shift_pack import bitmap_dual_shift_pack
from .bitmap_linear import bitmap_linear
from .bitmap_pack import bitmap_pack
from .bitmap_row_offsets import bitmap_row_offsets
from .bitmap_unpack import bitmap_unpack
from .nm_mask import nm_mask

__all__ = [
    "bitmap_dual_shift_dequantize",
    "bitmap_dual_shift_linear",
    "bitmap_dual_shift_pack",
    "bitmap_linear",
    "bitmap_pack",
    "bitmap_row_offsets",
    "bitmap_unpack",
    "nm_mask",
]
