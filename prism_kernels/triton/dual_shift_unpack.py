"""The bit planes of panels back to codes. A program unpacks 32 rows x 128 columns. Bound: bits / 8 bytes read and a
byte written per code."""

import torch
import triton
import triton.language as tl

from ._dual_shift import as_words, load_codes
from ._launch import cdiv, launch

_ROWS, _BLOCKS = 32, 4


@triton.jit
def _dual_shift_unpack_kernel(
    words, codes, n, k, num_blocks, BITS: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first_block = tl.program_id(1) * BLOCKS
    column = first_block * 32 + tl.arange(0, 32 * BLOCKS)
    code = load_codes(words, row, (n + 15) // 16, first_block, num_blocks, BITS, BLOCKS)
    inside = (row < n)[:, None] & (column < k)[None, :]
    tl.store(codes + row.to(tl.int64)[:, None] * k + column[None, :], code.to(tl.uint8), mask=inside)


def dual_shift_unpack(packed: torch.Tensor, n: int, k: int, bits: int) -> torch.Tensor:
    """As `ops.dual_shift_unpack`."""
    codes = torch.empty(n, k, dtype=torch.uint8, device=packed.device)
    launch(
        _dual_shift_unpack_kernel, (cdiv(n, _ROWS), cdiv(k, 32 * _BLOCKS)), words=as_words(packed), codes=codes, n=n,
        k=k, num_blocks=packed.shape[1], BITS=bits, ROWS=_ROWS, BLOCKS=_BLOCKS,
    )  # fmt: skip
    return codes
