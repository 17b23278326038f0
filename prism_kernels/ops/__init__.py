"""The public op functions. Each module here holds one op's schema, fake, argument checks and public function."""

from .bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize
from .bitmap_dual_shift_linear import bitmap_dual_shift_linear
from .bitmap_dual_shift_pack import bitmap_dual_shift_pack
from .bitmap_linear import bitmap_linear
from .bitmap_pack import bitmap_pack
from .bitmap_panel_offsets import bitmap_panel_offsets
from .bitmap_unpack import bitmap_unpack
from .block_scores import block_scores
from .csr_linear import csr_linear
from .csr_unpack import csr_unpack
from .dual_shift_dequantize import dual_shift_dequantize
from .dual_shift_linear import dual_shift_linear
from .dual_shift_pack import dual_shift_pack
from .dual_shift_quantize import dual_shift_quantize
from .dual_shift_unpack import dual_shift_unpack
from .low_rank_linear import low_rank_linear
from .nm_mask import nm_mask
from .obs_sweep import obs_sweep
from .sinkhorn import column_scale, sinkhorn
from .sparse24_dual_shift_dequantize import sparse24_dual_shift_dequantize
from .sparse24_dual_shift_linear import sparse24_dual_shift_linear
from .sparse24_linear import sparse24_linear
from .sparse24_pack import sparse24_pack
from .sparse24_unpack import sparse24_unpack
from .tiered_linear import tiered_linear
from .tiered_unpack import tiered_unpack
from .topk_mask import topk_mask

__all__ = [
    "bitmap_dual_shift_dequantize",
    "bitmap_dual_shift_linear",
    "bitmap_dual_shift_pack",
    "bitmap_linear",
    "bitmap_pack",
    "bitmap_panel_offsets",
    "bitmap_unpack",
    "block_scores",
    "column_scale",
    "csr_linear",
    "csr_unpack",
    "dual_shift_dequantize",
    "dual_shift_linear",
    "dual_shift_pack",
    "dual_shift_quantize",
    "dual_shift_unpack",
    "low_rank_linear",
    "nm_mask",
    "obs_sweep",
    "sinkhorn",
    "sparse24_dual_shift_dequantize",
    "sparse24_dual_shift_linear",
    "sparse24_linear",
    "sparse24_pack",
    "sparse24_unpack",
    "tiered_linear",
    "tiered_unpack",
    "topk_mask",
]
