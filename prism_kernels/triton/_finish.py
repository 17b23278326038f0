"""The end of every linear: sums of the parts of k in their order, token scale, bias, one rounding."""

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch


@triton.jit
def finish(sums, token, row, token_scale, bias, m, n, HAS_TOKEN_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr):
    """float32 sums and `token`, `row` of shapes that broadcast against them."""
    if HAS_TOKEN_SCALE:
        sums = sums * tl.load(token_scale + token, mask=token < m, other=0.0)
    if HAS_BIAS:
        sums = sums + tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)
    return sums


@triton.jit
def _add_parts_kernel(
    parts, token_scale, bias, out, m, n, num_parts, HAS_TOKEN_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = token.to(tl.int64) * n + row
    sums = tl.zeros([ROWS], tl.float32)
    where = at
    for _ in range(num_parts):
        sums += tl.load(parts + where, mask=row < n, other=0.0)
        where += m * n
    sums = finish(sums, token, row, token_scale, bias, m, n, HAS_TOKEN_SCALE, HAS_BIAS)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=row < n)


def add_parts(
    parts: torch.Tensor, token_scale: torch.Tensor | None, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    """out [m, n] = (parts float32 [S, m, n] summed in order) * token_scale [m] + bias [n]."""
    num_parts, m, n = parts.shape
    launch(
        _add_parts_kernel, (cdiv(n, 256), m), parts=parts,
        token_scale=parts if token_scale is None else token_scale, bias=parts if bias is None else bias, out=out,
        m=m, n=n, num_parts=num_parts, HAS_TOKEN_SCALE=token_scale is not None, HAS_BIAS=bias is not None, ROWS=256,
    )  # fmt: skip


def parts_of_k(programs: int, steps: int, most: int, multiprocessors: int) -> tuple[int, int]:
    """(parts, steps of each) of `steps` along k: enough of them to fill the GPU with four programs on each
    multiprocessor, each of at least four steps, and at most `most`."""
    wanted = min(4 * multiprocessors // max(programs, 1), steps // 4, most)
    each = cdiv(steps, max(wanted, 1))
    return cdiv(steps, max(each, 1)), each
