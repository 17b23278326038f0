"""Packing of a 2:4 weight for sparse tensor cores."""

import torch

from ..reference.sparse24_pack import sparse24_pack as reference
from ._check import require_tensor
from ._define import define
from ._sparse24 import VALUE_DTYPES, columns_shape, packed_shape


def _fake(weight, mask):
    n, k = weight.shape
    dtype = torch.int32 if weight.dtype == torch.uint8 else weight.dtype
    packed = weight.new_empty(packed_shape(dtype, n, k), dtype=dtype)
    return packed, weight.new_empty(columns_shape(n, k), dtype=torch.int32)


define("sparse24_pack(Tensor weight, Tensor mask) -> (Tensor, Tensor)", reference=reference, fake=_fake)


def sparse24_pack(weight: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two stored elements of every quad (a row, columns 4 q to 4 q + 3) and which they are, in the order in which
    sparse tensor cores read them (`reference/sparse24.py`). P = ceil(n / 16), T = ceil(k / 64).

    Args:
        weight: [n, k], float16 or bfloat16; or uint8, codes below 16.
        mask: bool [n, k], True = stored, at most 2 of a quad (of more, the first 2 count). A quad with fewer stores
            zeros at its first pruned columns; for codes give it 2, because code 0 need not mean 0.

    Returns:
        values [P, T, 2, 32, 8] in the dtype of `weight`, or for uint8 codes int32 [P, T, 32, 2]; columns int32
        [P, T, 32].

    Raises:
        TypeError, ValueError: another dtype, or shapes that differ.
    """
    name = "sparse24_pack"
    require_tensor(weight, name, "weight", shape=(None, None), dtype=(*VALUE_DTYPES, torch.uint8))
    require_tensor(mask, name, "mask", shape=tuple(weight.shape), dtype=torch.bool, device=weight.device)
    return torch.ops.prism.sparse24_pack.default(weight.contiguous(), mask.contiguous())
