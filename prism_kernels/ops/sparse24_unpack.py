"""The inverse of `sparse24_pack`."""

import torch

from ..reference.sparse24_unpack import sparse24_unpack as reference
from ._define import define
from ._sparse24 import VALUE_DTYPES, require_packed


def _fake(packed, columns, n, k):
    dtype = torch.uint8 if packed.dtype == torch.int32 else packed.dtype
    return packed.new_empty(n, k, dtype=dtype), packed.new_empty(n, k, dtype=torch.bool)


define(
    "sparse24_unpack(Tensor packed, Tensor columns, int n, int k) -> (Tensor, Tensor)", reference=reference, fake=_fake
)


def sparse24_unpack(packed: torch.Tensor, columns: torch.Tensor, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight that `sparse24_pack` packed.

    Args:
        packed: values, float16 or bfloat16 [P, T, 2, 32, 8], or codes, int32 [P, T, 32, 2].
        columns: int32 [P, T, 32].
        n, k: rows and columns.

    Returns:
        weight [n, k] in the dtype of the values, or uint8 for codes, 0 where nothing is stored; bool [n, k], what is.

    Raises:
        TypeError, ValueError: another dtype or shape.
    """
    require_packed("sparse24_unpack", "packed", packed, columns, n, k, (*VALUE_DTYPES, torch.int32))
    return torch.ops.prism.sparse24_unpack.default(packed.contiguous(), columns.contiguous(), n, k)
