"""The inverse of `sparse24_pack`."""

import torch

from ..reference.sparse24_unpack import sparse24_unpack as reference
from ._define import define
from ._sparse24 import VALUE_DTYPES, require_packed


def _fake(packed, columns, n, k):
    dtype = torch.uint8 if packed.dtype == torch.int32 else packed.dtype
    return packed.new_empty(n, k, dtype=dtype)


define("sparse24_unpack(Tensor packed, Tensor columns, int n, int k) -> Tensor", reference=reference, fake=_fake)


def sparse24_unpack(packed: torch.Tensor, columns: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """The weight that `sparse24_pack` packed.

    Args:
        packed: values, float16 or bfloat16 [P, T, 2, 32, 8], or codes, int32 [P, T, 32, 2].
        columns: int32 [P, T, 32].
        n, k: rows and columns.

    Returns:
        [n, k] in the dtype of the values, or uint8 for codes; 0 where nothing is stored.

    Raises:
        TypeError, ValueError: another dtype or shape.
    """
    require_packed("sparse24_unpack", "packed", packed, columns, n, k, (*VALUE_DTYPES, torch.int32))
    return torch.ops.prism.sparse24_unpack.default(packed.contiguous(), columns.contiguous(), n, k)


def stored_elements(columns: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """Bool [n, k]: what the columns of a weight say is stored, whatever its value; where codes of 1 would stand."""
    ones = torch.full((*columns.shape, 2), 0x11111111, dtype=torch.int32, device=columns.device)
    return torch.ops.prism.sparse24_unpack.default(ones, columns, n, k).bool()
