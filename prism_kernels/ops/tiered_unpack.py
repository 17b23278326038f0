"""A weight in tiles, dense again."""

import torch

from ..reference.tiered_unpack import tiered_unpack as reference
from ._define import define
from ._tiered import require_tiered


def _fake(tiers, masks, values, panel_offsets, n, k):
    return values.new_empty(n, k)


define(
    "tiered_unpack(Tensor tiers, Tensor masks, Tensor values, Tensor panel_offsets, int n, int k) -> Tensor",
    reference=reference,
    fake=_fake,
)


def tiered_unpack(
    tiers: torch.Tensor, masks: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """The dense weight [n, k] in the dtype of `values`; a pruned weight is exactly 0.

    Args:
        tiers: uint8 [ceil(n / 16), ceil(k / 16)]: 0 dense, 1 2:4, 2 top-k, 3 empty.
        masks: uint8 [tiles of tier 1 or 2, 32].
        values: [kept], float32, float16 or bfloat16.
        panel_offsets: int64 [ceil(n / 16) + 1, 2], from `prism_kernels.reference.tiered.panel_offsets`; of some panels
            of a larger weight, give their rows of `tiers` and of `panel_offsets` with all of `masks` and `values`.
        n, k: sizes of the dense weight.
    """
    require_tiered("tiered_unpack", tiers, masks, values, panel_offsets, n, k, values.device)
    return torch.ops.prism.tiered_unpack.default(
        tiers.contiguous(), masks.contiguous(), values.contiguous(), panel_offsets.contiguous(), n, k
    )
