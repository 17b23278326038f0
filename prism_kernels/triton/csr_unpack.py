"""A CSR weight, dense again: zeros, then a program per row stores its survivors where they belong.

Triton cannot scatter within shared memory, so the dense weight is written as zeros first. Bound: 2 bytes written per
weight, what is stored read, and the survivors written again in the cache.
"""

import torch
import triton
import triton.language as tl

from ._launch import launch

_SURVIVORS = 1024


@triton.jit
def _csr_unpack_kernel(values, columns, row_offsets, out, k, SURVIVORS: tl.constexpr):
    row = tl.program_id(0)
    begin = tl.load(row_offsets + row).to(tl.int64)
    end = tl.load(row_offsets + row + 1).to(tl.int64)
    for first in range(begin, end, SURVIVORS):
        at = first + tl.arange(0, SURVIVORS)
        column = tl.load(columns + at, mask=at < end, other=0).to(tl.int32)
        if columns.dtype.element_ty == tl.int16:
            column = column & 0xFFFF
        inside = (at < end) & (column >= 0) & (column < k)
        value = tl.load(values + at, mask=inside, other=0.0)
        tl.store(out + row.to(tl.int64) * k + column, value, mask=inside)


def csr_unpack(values: torch.Tensor, columns: torch.Tensor, row_offsets: torch.Tensor, k: int) -> torch.Tensor:
    """As `ops.csr_unpack`."""
    n = row_offsets.shape[0] - 1
    out = torch.zeros(n, k, dtype=values.dtype, device=values.device)
    launch(
        _csr_unpack_kernel, (n if k and values.numel() else 0,), values=values, columns=columns,
        row_offsets=row_offsets, out=out, k=k, SURVIVORS=_SURVIVORS,
    )  # fmt: skip
    return out
