"""A CSR weight, dense again."""

import torch

from ..reference.csr_unpack import csr_unpack as reference
from ._csr import require_csr
from ._define import define


def _fake(values, columns, row_offsets, k):
    return values.new_empty(row_offsets.shape[0] - 1, k)


define(
    "csr_unpack(Tensor values, Tensor columns, Tensor row_offsets, int k) -> Tensor", reference=reference, fake=_fake
)


def csr_unpack(values: torch.Tensor, columns: torch.Tensor, row_offsets: torch.Tensor, k: int) -> torch.Tensor:
    """The dense weight [n, k] in the dtype of `values`; what is not stored is exactly 0.

    Args:
        values: [kept], float32, float16 or bfloat16.
        columns: [kept], int32, or int16 with the bits of an unsigned number; below k, each row's different.
        row_offsets: int32 or int64 [n + 1]: where each row begins; of some rows of a larger weight, give their offsets
            with all of `values` and `columns`.
        k: columns of the dense weight.
    """
    require_csr("csr_unpack", values, columns, row_offsets, k, values.device)
    return torch.ops.prism.csr_unpack.default(values.contiguous(), columns.contiguous(), row_offsets.contiguous(), k)
