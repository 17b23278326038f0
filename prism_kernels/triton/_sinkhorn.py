"""Kernels of `sinkhorn`: extremes, spreads of rows and columns in one pass, and what is done with them.

A program reads a few rows of one matrix from the first column to the last. Its row spreads are final; of each column it
leaves count, mean and sum of squared deviations, which the next kernel merges in the order of programs (Chan et al.
1983): no float atomics, and no cancellation where a mean is large against its spread. Elements are float32 times a
power of two that brings the largest near 1, everything about a line (its factor, its merged sums) is float64.
"""

import triton
import triton.language as tl


@triton.jit
def merge(count, mean, square, other_count, other_mean, other_square):
    """(count, mean, sum of squared deviations) of the union of two samples; counts may be 0."""
    total = count + other_count
    gap = other_mean - mean
    share = other_count / tl.maximum(total, 1.0)
    return total, mean + gap * share, square + other_square + gap * gap * count * share


@triton.jit
def sample(value, kept, axis: tl.constexpr):
    """(count, mean, sum of squared deviations) along an axis of a tile [R, C], float32."""
    count = tl.sum(kept.to(tl.float32), axis=axis)
    mean = tl.sum(value, axis=axis) / tl.maximum(count, 1.0)
    gap = tl.where(kept, value - tl.expand_dims(mean, axis), 0.0)
    return count, mean, tl.sum(gap * gap, axis=axis)


@triton.jit
def load_tile(weight, mask, matrix, row, column, n, k, HAS_MASK: tl.constexpr):
    """(float32 [R, C], 0 where not kept; kept) of one matrix; what is not kept may be anything, NaN included."""
    at = matrix.to(tl.int64) * n * k + row.to(tl.int64)[:, None] * k + column[None, :]
    kept = (row < n)[:, None] & (column < k)[None, :]
    value = tl.load(weight + at, mask=kept, other=0.0).to(tl.float32)
    if HAS_MASK:
        kept = kept & (tl.load(mask + at, mask=kept, other=0) != 0)
    return tl.where(kept, value, 0.0), kept


@triton.jit
def extremes_kernel(
    weight, mask, row_low, row_high, part_low, part_high, n, k, chunks,
    HAS_MASK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Smallest and largest kept entry: of rows [b, n], of the columns of each chunk of rows [b, chunks, k]."""
    chunk, matrix = tl.program_id(0), tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    low = tl.full([ROWS], float("inf"), tl.float32)
    high = tl.full([ROWS], float("-inf"), tl.float32)
    for begin in range(0, k, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        value, kept = load_tile(weight, mask, matrix, row, column, n, k, HAS_MASK)
        below = tl.where(kept, value, float("inf"))
        above = tl.where(kept, value, float("-inf"))
        low = tl.minimum(low, tl.min(below, axis=1))
        high = tl.maximum(high, tl.max(above, axis=1))
        at = (matrix.to(tl.int64) * chunks + chunk) * k + column
        tl.store(part_low + at, tl.min(below, axis=0), mask=column < k)
        tl.store(part_high + at, tl.max(above, axis=0), mask=column < k)
    tl.store(row_low + matrix * n + row, low, mask=row < n)
    tl.store(row_high + matrix * n + row, high, mask=row < n)


@triton.jit
def live_columns_kernel(
    part_low, part_high, column_low, column_high, k, chunks, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Extremes of the chunks to extremes of the columns [b, k]."""
    matrix = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    low = tl.full([COLUMNS], float("inf"), tl.float32)
    high = tl.full([COLUMNS], float("-inf"), tl.float32)
    for begin in range(0, chunks, CHUNKS):
        chunk = begin + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & (column < k)[None, :]
        at = (matrix.to(tl.int64) * chunks + chunk)[:, None] * k + column[None, :]
        low = tl.minimum(low, tl.min(tl.load(part_low + at, mask=inside, other=float("inf")), axis=0))
        high = tl.maximum(high, tl.max(tl.load(part_high + at, mask=inside, other=float("-inf")), axis=0))
    tl.store(column_low + matrix * k + column, low, mask=column < k)
    tl.store(column_high + matrix * k + column, high, mask=column < k)


@triton.jit
def unit_kernel(row_low, row_high, unit, n, LINES: tl.constexpr):
    """A power of two per matrix that brings its largest magnitude into [1, 2), as far as 2^+-100 do."""
    matrix = tl.program_id(0)
    largest = tl.zeros([LINES], tl.float32)
    for begin in range(0, n, LINES):
        row = begin + tl.arange(0, LINES)
        low = tl.load(row_low + matrix * n + row, mask=row < n, other=0.0)
        high = tl.load(row_high + matrix * n + row, mask=row < n, other=0.0)
        some = high >= low
        largest = tl.maximum(largest, tl.where(some, tl.maximum(-low, high), 0.0))
    exponent = (tl.max(largest, axis=0).to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.minimum(tl.maximum(254 - exponent, 27), 227)
    tl.store(unit + matrix, (exponent << 23).to(tl.float32, bitcast=True))


@triton.jit
def spread_of(count, square, unit, CORRECTION: tl.constexpr):
    """Standard deviation in the units of the weight; 0 where fewer than two entries are kept."""
    return tl.sqrt(square / tl.maximum(count - CORRECTION, 1.0)) / unit


@triton.jit
def prism_step(factor, spread):
    """The next factor of a line, within [e^-10, e^10]."""
    moved = factor * tl.maximum(spread, 1e-4)
    return tl.minimum(tl.maximum(moved, 4.5399929762484854e-05), 22026.465794806718)


@triton.jit
def spreads_kernel(
    weight, mask, unit, column_factor, row_factor, row_low, row_high, row_spread, part_count, part_mean, part_square,
    done, n, k, chunks,
    HAS_MASK: tl.constexpr, PRISM: tl.constexpr, CORRECTION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Row spreads and the columns' samples of one chunk of rows, of weight / column_factor / row_factor. PRISM: the
    rows take their step first, and the columns are sampled with it: a second reading, from the cache."""
    chunk, matrix = tl.program_id(0), tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    line = matrix * n + row
    power = tl.load(unit + matrix)
    factor = tl.load(row_factor + line, mask=row < n, other=1.0)
    end = tl.where(tl.load(done + matrix) != 0, 0, k)  # once a matrix is finished, its programs have nothing to do
    count = tl.zeros([ROWS], tl.float64)
    mean = tl.zeros([ROWS], tl.float64)
    square = tl.zeros([ROWS], tl.float64)
    for begin in range(0, end, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        across = tl.load(column_factor + matrix * k + column, mask=column < k, other=1.0)
        value, kept = load_tile(weight, mask, matrix, row, column, n, k, HAS_MASK)
        value = value * power * (1.0 / across).to(tl.float32)[None, :] * (1.0 / factor).to(tl.float32)[:, None]
        c, mu, sq = sample(value, kept, 1)
        count, mean, square = merge(count, mean, square, c.to(tl.float64), mu.to(tl.float64), sq.to(tl.float64))
        if not PRISM:
            c, mu, sq = sample(value, kept, 0)
            at = (matrix.to(tl.int64) * chunks + chunk) * k + column
            tl.store(part_count + at, c, mask=column < k)
            tl.store(part_mean + at, mu, mask=column < k)
            tl.store(part_square + at, sq, mask=column < k)
    spread = spread_of(count, square, power.to(tl.float64), CORRECTION)
    if PRISM:
        some = tl.load(row_high + line, mask=row < n, other=0.0) >= tl.load(row_low + line, mask=row < n, other=1.0)
        factor = tl.where(some, prism_step(factor, spread), 1.0)
        tl.store(row_factor + line, factor, mask=row < n)
        for begin in range(0, end, COLUMNS):
            column = begin + tl.arange(0, COLUMNS)
            across = tl.load(column_factor + matrix * k + column, mask=column < k, other=1.0)
            value, kept = load_tile(weight, mask, matrix, row, column, n, k, HAS_MASK)
            value = value * power * (1.0 / across).to(tl.float32)[None, :] * (1.0 / factor).to(tl.float32)[:, None]
            c, mu, sq = sample(value, kept, 0)
            at = (matrix.to(tl.int64) * chunks + chunk) * k + column
            tl.store(part_count + at, c, mask=column < k)
            tl.store(part_mean + at, mu, mask=column < k)
            tl.store(part_square + at, sq, mask=column < k)
    else:
        tl.store(row_spread + line, spread, mask=row < n)


@triton.jit
def merge_columns_kernel(
    unit, column_factor, column_low, column_high, column_spread, part_count, part_mean, part_square, done, k, chunks,
    PRISM: tl.constexpr, CORRECTION: tl.constexpr, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The columns' samples of all chunks, merged in order, to their spreads; PRISM: to their next factors."""
    matrix = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    line = matrix * k + column
    count = tl.zeros([COLUMNS], tl.float64)
    mean = tl.zeros([COLUMNS], tl.float64)
    square = tl.zeros([COLUMNS], tl.float64)
    end = tl.where(tl.load(done + matrix) != 0, 0, chunks)
    for begin in range(0, end, CHUNKS):
        chunk = begin + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & (column < k)[None, :]
        at = (matrix.to(tl.int64) * chunks + chunk)[:, None] * k + column[None, :]
        c = tl.load(part_count + at, mask=inside, other=0.0).to(tl.float64)
        mu = tl.load(part_mean + at, mask=inside, other=0.0).to(tl.float64)
        sq = tl.load(part_square + at, mask=inside, other=0.0).to(tl.float64)
        total = tl.sum(c, axis=0)
        middle = tl.sum(c * mu, axis=0) / tl.maximum(total, 1.0)
        gap = mu - middle[None, :]
        count, mean, square = merge(count, mean, square, total, middle, tl.sum(sq + c * gap * gap, axis=0))
    spread = spread_of(count, square, tl.load(unit + matrix).to(tl.float64), CORRECTION)
    if PRISM:
        low = tl.load(column_low + line, mask=column < k, other=1.0)
        some = tl.load(column_high + line, mask=column < k, other=0.0) >= low
        factor = tl.load(column_factor + line, mask=column < k, other=1.0)
        tl.store(column_factor + line, tl.where(some, prism_step(factor, spread), 1.0), mask=column < k)
    else:
        tl.store(column_spread + line, spread, mask=column < k)
