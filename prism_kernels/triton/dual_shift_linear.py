"""y = x @ decode(codes)^T on tensor cores: codes, exact in bfloat16 and float16, times x * column_scale.

A program multiplies ROWS rows by TOKENS tokens, a step of k inside one group at a time. With h half the range of codes,
sum_k (q - z) * xc = sum_k (q - h) * xc - (z - h) * sum_k xc: the first term is a tensor-core product of codes alone, so
that a weight costs three instructions, and zero point and scale meet float32 sums once per group. Small m is split
along k; the parts are added in their order by a second kernel, so that results do not depend on the order of programs.
float32 x and groups that are not whole blocks of 32 columns take the PLAIN form: everything in float32 on CUDA cores,
correct and slow.

Bound at small m: the weight's bytes (bits / 8 + 2.5 / g each), at 3 to 4 integer instructions per weight; not measured.
"""

import torch
import triton
import triton.language as tl

from ._activations import quantize_tokens
from ._dual_shift import as_words, codebook_levels, exact_float, load_codes, load_scale, load_zero
from ._finish import add_parts, finish, parts_of_k
from ._launch import cdiv, launch, multiprocessors, next_power_of_2


@triton.jit
def centred(codes, dtype: tl.constexpr, BITS: tl.constexpr):
    """q - 2^(BITS - 1) in dtype, exact: a code is set as mantissa bits below 1024 (float16) or 128 (bfloat16)."""
    CENTRE: tl.constexpr = 1 << (BITS - 1)
    if dtype == tl.float16:
        return (codes | 0x6400).to(tl.int16).to(tl.float16, bitcast=True) - (1024.0 + CENTRE)
    elif dtype == tl.bfloat16 and BITS < 8:
        return (codes | 0x4300).to(tl.int16).to(tl.bfloat16, bitcast=True) - (128.0 + CENTRE)
    else:
        return (exact_float(codes) - CENTRE).to(dtype)


@triton.jit
def _linear_kernel(
    x, words, scale, zero, column_scale, levels, token_scale, bias, out,
    m, n, k, num_blocks, num_groups, group_size, steps_each,
    BITS: tl.constexpr, UNIFORM: tl.constexpr, PLAIN: tl.constexpr, SCALED: tl.constexpr,
    HAS_TOKEN_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, WHOLE: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    num_panels = (n + 15) // 16
    first = tl.program_id(2) * steps_each
    last = tl.minimum(first + steps_each, (num_blocks + BLOCKS - 1) // BLOCKS)
    sums = tl.zeros([ROWS, TOKENS], tl.float32)
    for step in range(first, last):
        first_block = step * BLOCKS
        column = first_block * 32 + tl.arange(0, 32 * BLOCKS)
        codes = load_codes(words, row, num_panels, first_block, num_blocks, BITS, BLOCKS)
        in_x = (column < k)[:, None] & (token < m)[None, :]
        inputs = tl.load(x + token.to(tl.int64)[None, :] * k + column[:, None], mask=in_x, other=0.0)
        if PLAIN:
            inputs = inputs.to(tl.float32)
        if SCALED:
            factor = tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)
            inputs = (inputs.to(tl.float32) * factor[:, None]).to(inputs.dtype)
        if PLAIN:
            present = (row // 16 < num_panels)[:, None] & (column < k)[None, :]
            group = (column // group_size)[None, :]
            if UNIFORM:
                steps = (codes - load_zero(zero, row[:, None], group, present, num_groups, BITS)).to(tl.float32)
            else:
                steps = tl.load(levels + codes)
            steps = steps * load_scale(scale, row[:, None], group, present, num_groups)
            sums += tl.dot(steps, inputs, input_precision="ieee")
        else:
            present = row // 16 < num_panels
            group = (first_block * 32) // group_size
            if UNIFORM:
                part = tl.dot(centred(codes, inputs.dtype, BITS), inputs)
                zeros = load_zero(zero, row, group, present, num_groups, BITS) - (1 << (BITS - 1))
                part -= zeros.to(tl.float32)[:, None] * tl.sum(inputs.to(tl.float32), axis=0)[None, :]
            else:
                part = tl.dot(tl.load(levels + codes), inputs)
            sums += part * load_scale(scale, row, group, present, num_groups)[:, None]
    inside = (row < n)[:, None] & (token < m)[None, :]
    at = token.to(tl.int64)[None, :] * n + row[:, None]
    if WHOLE:
        sums = finish(sums, token[None, :], row[:, None], token_scale, bias, m, n, HAS_TOKEN_SCALE, HAS_BIAS)
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(out + tl.program_id(2).to(tl.int64) * m * n + at, sums, mask=inside)


def blocks_of_group(group_size: int) -> int:
    """Blocks of 32 columns per step: as many as lie in one group, at most 4; 0 = groups are not made of blocks."""
    return next((b for b in (4, 2, 1) if group_size % (32 * b) == 0), 0)


def dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    activation_bits: int | None,
) -> torch.Tensor:
    """As `ops.dual_shift_linear` on x [m, k]. Where tensor cores multiply, x * column_scale and the levels of a
    codebook are rounded to x.dtype."""
    (m, k), token_scale, scaled = x.shape, None, activation_bits is None
    if not scaled:
        x, token_scale = quantize_tokens(x, column_scale)
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    blocks = blocks_of_group(group_size)
    plain = x.dtype == torch.float32 or blocks == 0
    blocks = 1 if plain else blocks
    tokens = min(max(next_power_of_2(m), 16), 64)
    rows, num_warps = (128, 8) if tokens == 64 and not plain else (64, 4)
    grid = cdiv(n, rows), cdiv(m, tokens)
    # Partial sums are written and read in float32: they shall not outweigh the codes.
    most = k * bits // (64 * max(m, 1))
    steps = cdiv(codes.shape[1], blocks)
    parts, each = parts_of_k(grid[0] * grid[1], steps, most, multiprocessors(x.device))
    whole = parts <= 1
    sums = out if whole else torch.empty(parts, m, n, dtype=torch.float32, device=x.device)
    uniform = codebook == "uniform"
    levels_dtype = torch.float32 if plain else x.dtype
    launch(
        _linear_kernel, (*grid, max(parts, 1)),
        x=x, words=as_words(codes), scale=scale, zero=zero if uniform else codes, column_scale=column_scale,
        levels=scale if uniform else codebook_levels(codebook, x.device, levels_dtype),
        token_scale=scale if token_scale is None else token_scale, bias=scale if bias is None else bias, out=sums,
        m=m, n=n, k=k, num_blocks=codes.shape[1], num_groups=scale.shape[1], group_size=group_size, steps_each=each,
        BITS=bits, UNIFORM=uniform, PLAIN=plain, SCALED=scaled, HAS_TOKEN_SCALE=token_scale is not None,
        HAS_BIAS=bias is not None, WHOLE=whole, ROWS=rows, TOKENS=tokens, BLOCKS=blocks,
        num_warps=num_warps, num_stages=1 if plain else 3, contract=True,
    )  # fmt: skip
    if not whole:
        add_parts(sums, token_scale, bias, out)
    return out
