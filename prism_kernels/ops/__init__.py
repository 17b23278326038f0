"""The public op functions. Each module here holds one op's schema, fake, argument checks and public function."""

from .nm_mask import nm_mask
from .obs_sweep import obs_sweep
from .sinkhorn import column_scale, sinkhorn
from .topk_mask import topk_mask

__all__ = ["column_scale", "nm_mask", "obs_sweep", "sinkhorn", "topk_mask"]
