"""y = x @ decode(codes)^T over codes of survivors: as `dual_shift_linear`, behind the bitmap of `bitmap_linear`.

With h half the range of codes, sum_kept (q - z) * xc = sum_kept (q - h) * xc - (z - h) * sum_kept xc:
two tensor-core products over one expansion, the second of the mask itself, so that zero point and scale meet float32
sums once per group. The order of columns within a quad is that of its bytes, in weights and activations alike. Four
rows of a quad are a thread's share: 170 to 220 registers hold their codes and addresses. Not measured.
"""

import torch
import triton
import triton.language as tl

from ._activations import quantize_tokens
from ._bits import load_quads, quad_columns, skip_quads
from ._dual_shift import codebook_levels, load_scale, load_zero
from ._finish import add_parts, finish, parts_of_k
from ._launch import cdiv, launch, multiprocessors, next_power_of_2
from .dual_shift_linear import blocks_of_group, centred

_PANELS, _PARTS = 4, 4


@triton.jit
def decode_quads(
    code, kept, row, column, scale, zero, levels, n, k, num_groups, group_size, BITS: tl.constexpr,
    UNIFORM: tl.constexpr,
):  # fmt: skip
    """Weights before their column scale in float32: 0 where not kept."""
    present = (row // 16 < (n + 15) // 16)[:, None] & (column < k)[None, :]
    group = (column // group_size)[None, :]
    if UNIFORM:
        steps = (code - load_zero(zero, row[:, None], group, present, num_groups, BITS)).to(tl.float32)
    else:
        steps = tl.load(levels + code)
    return tl.where(kept > 0, steps, 0.0) * load_scale(scale, row[:, None], group, present, num_groups)


@triton.jit
def _bitmap_dual_shift_linear_kernel(
    x, bitmap, codes, panel_offsets, scale, zero, column_scale, levels, token_scale, bias, out,
    m, n, k, num_quads, num_bytes, num_groups, group_size, steps_each,
    BITS: tl.constexpr, UNIFORM: tl.constexpr, PLAIN: tl.constexpr, SCALED: tl.constexpr,
    HAS_TOKEN_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, WHOLE: tl.constexpr,
    PANELS: tl.constexpr, QUADS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    num_panels = (n + 15) // 16
    panel = tl.program_id(0) * PANELS + tl.arange(0, PANELS)
    row = tl.program_id(0) * PANELS * 16 + tl.arange(0, PANELS * 16)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    first = tl.program_id(2) * steps_each * QUADS
    end = tl.minimum(first + steps_each * QUADS, num_quads)
    start = tl.load(panel_offsets + panel, mask=panel < num_panels, other=0)
    start = skip_quads(bitmap, panel, start, first, num_quads, num_panels, BITS, 4 * QUADS)
    sums = tl.zeros([PANELS * 16, TOKENS], tl.float32)
    for quad in range(first, end, QUADS):
        code, kept, start = load_quads(
            bitmap, codes, panel, start, quad, end, num_quads, num_panels, num_bytes, BITS, QUADS
        )
        column = quad_columns(quad, QUADS)
        inside = (column < k)[:, None] & (token < m)[None, :]
        inputs = tl.load(x + token.to(tl.int64)[None, :] * k + column[:, None], mask=inside, other=0.0)
        if PLAIN:
            inputs = inputs.to(tl.float32)
        if SCALED:
            factor = tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)
            inputs = (inputs.to(tl.float32) * factor[:, None]).to(inputs.dtype)
        if PLAIN:
            steps = decode_quads(
                code, kept, row, column, scale, zero, levels, n, k, num_groups, group_size, BITS, UNIFORM
            )
            sums += tl.dot(steps, inputs, input_precision="ieee")
        else:
            present = row // 16 < num_panels
            group = quad * 4 // group_size
            if UNIFORM:
                zeros = (load_zero(zero, row, group, present, num_groups, BITS) - (1 << (BITS - 1))).to(tl.float32)
                own = centred(code, inputs.dtype, BITS)
                part = tl.dot(tl.where(kept > 0, own, tl.zeros_like(own)), inputs)
                part -= zeros[:, None] * tl.dot(kept.to(inputs.dtype), inputs)
            else:
                level = tl.load(levels + code)
                part = tl.dot(tl.where(kept > 0, level, tl.zeros_like(level)), inputs)
            sums += part * load_scale(scale, row, group, present, num_groups)[:, None]
    inside = (row < n)[:, None] & (token < m)[None, :]
    at = token.to(tl.int64)[None, :] * n + row[:, None]
    if WHOLE:
        sums = finish(sums, token[None, :], row[:, None], token_scale, bias, m, n, HAS_TOKEN_SCALE, HAS_BIAS)
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(out + tl.program_id(2).to(tl.int64) * m * n + at, sums, mask=inside)


def bitmap_dual_shift_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
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
    """As `ops.bitmap_dual_shift_linear` on x [m, k]. Where tensor cores multiply, x * column_scale and the levels of a
    codebook are rounded to x.dtype."""
    (m, k), quads, token_scale = x.shape, bitmap.shape[1], None
    scaled = activation_bits is None
    if not scaled:
        x, token_scale = quantize_tokens(x, column_scale)
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    blocks = blocks_of_group(group_size)
    plain = x.dtype == torch.float32 or blocks == 0
    quads_each = 8 if plain else 8 * min(blocks, 2)
    tokens = min(max(next_power_of_2(m), 16), 64)
    grid = cdiv(n, 16 * _PANELS), cdiv(m, tokens)
    parts, each = parts_of_k(grid[0] * grid[1], cdiv(quads, quads_each), _PARTS, multiprocessors(x.device))
    whole = parts <= 1
    sums = out if whole else torch.empty(parts, m, n, dtype=torch.float32, device=x.device)
    uniform = codebook == "uniform"
    levels_dtype = torch.float32 if plain else x.dtype
    launch(
        _bitmap_dual_shift_linear_kernel, (*grid, max(parts, 1)),
        x=x, bitmap=bitmap.view(torch.int32), codes=codes, panel_offsets=panel_offsets, scale=scale,
        zero=zero if uniform else codes, column_scale=column_scale,
        levels=scale if uniform else codebook_levels(codebook, x.device, levels_dtype),
        token_scale=scale if token_scale is None else token_scale, bias=scale if bias is None else bias, out=sums,
        m=m, n=n, k=k, num_quads=quads, num_bytes=codes.shape[0], num_groups=scale.shape[1], group_size=group_size,
        steps_each=each, BITS=bits, UNIFORM=uniform, PLAIN=plain, SCALED=scaled,
        HAS_TOKEN_SCALE=token_scale is not None, HAS_BIAS=bias is not None, WHOLE=whole,
        PANELS=_PANELS, QUADS=quads_each, TOKENS=tokens, num_warps=quads_each // 2,
        num_stages=1 if plain else 2, contract=True,
    )  # fmt: skip
    if not whole:
        add_parts(sums, token_scale, bias, out)
    return out
