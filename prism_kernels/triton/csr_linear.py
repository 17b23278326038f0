"""y = x @ weight^T over CSR: a program per row gathers x at the row's columns.

One token: 256 survivors at a time; x stays in the first cache up to k = 64 K. More tokens: x is arranged first as
[groups, k, up to 16 tokens], so that a gather is one stretch of 32 bytes for 16 tokens of 16 bits, and the survivors
are read once for each group. Sums are per lane and then in a fixed tree, so that a row's result depends on the row
alone. Bound at m = 1: 4 bytes per survivor (bfloat16, 16-bit columns); with more tokens the gathers, 32 bytes per
survivor from the caches. Not measured.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2

_MOST_TOKENS = 16


@triton.jit
def _load_survivors(values, columns, first, end, k, SURVIVORS: tl.constexpr):
    """(float32 values, int32 columns, which of them there are) of [first, end)."""
    at = first + tl.arange(0, SURVIVORS)
    value = tl.load(values + at, mask=at < end, other=0.0).to(tl.float32)
    column = tl.load(columns + at, mask=at < end, other=0).to(tl.int32)
    if columns.dtype.element_ty == tl.int16:
        column = column & 0xFFFF
    return value, column, (at < end) & (column >= 0) & (column < k)


@triton.jit
def _csr_linear_kernel(
    x, values, columns, row_offsets, bias, out, k, HAS_BIAS: tl.constexpr, SURVIVORS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    begin = tl.load(row_offsets + row).to(tl.int64)
    end = tl.load(row_offsets + row + 1).to(tl.int64)
    sums = tl.zeros([SURVIVORS], tl.float32)
    for first in range(begin, end, SURVIVORS):
        value, column, inside = _load_survivors(values, columns, first, end, k, SURVIVORS)
        sums += value * tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(sums, axis=0)
    if HAS_BIAS:
        total += tl.load(bias + row).to(tl.float32)
    tl.store(out + row, total.to(out.dtype.element_ty))


@triton.jit
def _csr_tokens_kernel(
    x, values, columns, row_offsets, bias, out, m, n, k,
    HAS_BIAS: tl.constexpr, TOKENS: tl.constexpr, SURVIVORS: tl.constexpr,
):  # fmt: skip
    row, group = tl.program_id(0), tl.program_id(1)
    begin = tl.load(row_offsets + row).to(tl.int64)
    end = tl.load(row_offsets + row + 1).to(tl.int64)
    token = tl.arange(0, TOKENS)
    own = x + group.to(tl.int64) * k * TOKENS
    sums = tl.zeros([SURVIVORS, TOKENS], tl.float32)
    for first in range(begin, end, SURVIVORS):
        value, column, inside = _load_survivors(values, columns, first, end, k, SURVIVORS)
        at = column.to(tl.int64)[:, None] * TOKENS + token[None, :]
        sums += value[:, None] * tl.load(own + at, mask=inside[:, None], other=0.0).to(tl.float32)
    total = tl.sum(sums, axis=0)
    if HAS_BIAS:
        total += tl.load(bias + row).to(tl.float32)
    token += group * TOKENS
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
    weight: dict[str, Any] = {"values": values, "columns": columns, "row_offsets": row_offsets}
    common = weight | {"bias": x if bias is None else bias, "out": out, "k": k, "HAS_BIAS": bias is not None}
    if m <= 1:
        launch(_csr_linear_kernel, (n * m,), x=x, **common, SURVIVORS=256, contract=True)
        return out
    tokens = min(next_power_of_2(m), _MOST_TOKENS)
    groups = cdiv(m, tokens)
    arranged = F.pad(x, (0, 0, 0, groups * tokens - m)).view(groups, tokens, k).transpose(1, 2).contiguous()
    launch(
        _csr_tokens_kernel, (n, groups), x=arranged, **common, m=m, n=n, TOKENS=tokens, SURVIVORS=1024 // tokens,
        contract=True,
    )  # fmt: skip
    return out
