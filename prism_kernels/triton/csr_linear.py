"""y = x @ weight^T over CSR: a program per row and 8 tokens gathers x at the row's columns, 256 survivors at a time.

Sums are per lane and then in a fixed tree, so that a row's result depends on the row alone. Bound at m = 1: 4 bytes per
survivor (bfloat16, 16-bit columns); x stays in the first cache up to k = 64 K. Not measured.
"""

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2


@triton.jit
def _csr_linear_kernel(
    x, values, columns, row_offsets, bias, out, m, n, k,
    HAS_BIAS: tl.constexpr, TOKENS: tl.constexpr, SURVIVORS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    line = token.to(tl.int64)[:, None] * k
    begin = tl.load(row_offsets + row).to(tl.int64)
    end = tl.load(row_offsets + row + 1).to(tl.int64)
    sums = tl.zeros([TOKENS, SURVIVORS], tl.float32)
    for first in range(begin, end, SURVIVORS):
        at = first + tl.arange(0, SURVIVORS)
        value = tl.load(values + at, mask=at < end, other=0.0).to(tl.float32)
        column = tl.load(columns + at, mask=at < end, other=0).to(tl.int32)
        if columns.dtype.element_ty == tl.int16:
            column = column & 0xFFFF
        inside = (token < m)[:, None] & ((at < end) & (column < k))[None, :]
        sums += value[None, :] * tl.load(x + line + column[None, :], mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(sums, axis=1)
    if HAS_BIAS:
        total += tl.load(bias + row).to(tl.float32)
    tl.store(out + token.to(tl.int64) * n + row, total.to(out.dtype.element_ty), mask=token < m)


def csr_linear(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    row_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `ops.csr_linear` on x [m, k]."""
    (m, k), n = x.shape, row_offsets.shape[0] - 1
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    tokens = min(next_power_of_2(m), 8)
    launch(
        _csr_linear_kernel, (n, cdiv(m, tokens)), x=x, values=values, columns=columns, row_offsets=row_offsets,
        bias=x if bias is None else bias, out=out, m=m, n=n, k=k, HAS_BIAS=bias is not None, TOKENS=tokens,
        SURVIVORS=256, contract=True,
    )  # fmt: skip
    return out
