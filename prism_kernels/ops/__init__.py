"""The public op functions. Each module here holds one op's schema, fake, argument checks and public function."""

from .dual_shift_dequantize import dual_shift_dequantize
from .dual_shift_linear import dual_shift_linear
from .dual_shift_quantize import dual_shift_quantize
from .nm_mask import nm_mask
from .obs_sweep import obs_sweep
from .pack_codes import pack_codes
from .sinkhorn import column_scale, sinkhorn
from .topk_mask import topk_mask
from .unpack_codes import unpack_codes

__all__ = [
    "column_scale",
    "dual_shift_dequantize",
    "dual_shift_linear",
    "dual_shift_quantize",
    "nm_mask",
    "obs_sweep",
    "pack_codes",
    "sinkhorn",
    "topk_mask",
    "unpack_codes",
]
