"""Kernels of `sinkhorn` that look at all lines of a matrix: the damped step of "sinq", and "rms"."""

import triton
import triton.language as tl

from ._sinkhorn import load_tile


@triton.jit
def _extremes(spread, low, high, matrix, size, smallest, largest, LINES: tl.constexpr):
    """Extremes of the spreads of live lines, those with two different kept entries, [LINES] and not yet reduced."""
    for begin in range(0, size, LINES):
        line = begin + tl.arange(0, LINES)
        at = matrix * size + line
        low_of = tl.load(low + at, mask=line < size, other=0.0)
        alive = tl.load(high + at, mask=line < size, other=0.0) > low_of
        value = tl.load(spread + at, mask=line < size, other=0.0)
        smallest = tl.minimum(smallest, tl.where(alive, value, float("inf")))
        largest = tl.maximum(largest, tl.where(alive, value, 0.0))
    return smallest, largest


@triton.jit
def _step(spread, factor, best, low, high, matrix, size, end, goal, LINES: tl.constexpr):
    """Of lines below `end`: keeps their factors as the best so far, then divides live lines' spreads towards the
    goal."""
    for begin in range(0, end, LINES):
        line = begin + tl.arange(0, LINES)
        at = matrix * size + line
        low_of = tl.load(low + at, mask=line < size, other=0.0)
        alive = tl.load(high + at, mask=line < size, other=0.0) > low_of
        value = tl.minimum(tl.maximum(tl.load(spread + at, mask=line < size, other=1.0), 1e-3), 1e3)
        old = tl.load(factor + at, mask=line < size, other=1.0)
        tl.store(best + at, old, mask=line < size)
        ratio = tl.minimum(tl.maximum(value / goal, 0.7), 2.0)
        moved = tl.minimum(tl.maximum(old * ratio, 0.7408182206817179), 22026.465794806718)
        tl.store(factor + at, tl.where(alive, moved, 1.0), mask=line < size)


@triton.jit
def sinq_step_kernel(
    column_spread, row_spread, column_factor, row_factor, best_column, best_row,
    column_low, column_high, row_low, row_high, target, least, done, n, k,
    FIRST: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """One iteration's decision for one matrix: stop where the imbalance has grown, otherwise keep the factors and
    move."""
    matrix = tl.program_id(0)
    finished = tl.load(done + matrix) != 0
    smallest = tl.full([LINES], float("inf"), tl.float64)
    largest = tl.zeros([LINES], tl.float64)
    smallest, largest = _extremes(row_spread, row_low, row_high, matrix, n, smallest, largest, LINES)
    smallest, largest = _extremes(column_spread, column_low, column_high, matrix, k, smallest, largest, LINES)
    low, high = tl.min(smallest, axis=0), tl.max(largest, axis=0)
    if FIRST:
        goal = tl.minimum(tl.maximum(tl.minimum(tl.maximum(low, 1e-3), 1e3) + 1e-6, 1e-3), 1e3)
        tl.store(target + matrix, goal)
    else:
        goal = tl.load(target + matrix)
    imbalance = high / tl.maximum(low, 1e-12)
    stop = finished | (imbalance > tl.load(least + matrix)) | (high == 0.0)
    tl.store(done + matrix, stop.to(tl.int32))
    if not stop:
        tl.store(least + matrix, imbalance)
    rows, columns = tl.where(stop, 0, n), tl.where(stop, 0, k)
    _step(row_spread, row_factor, best_row, row_low, row_high, matrix, n, rows, goal, LINES)
    _step(column_spread, column_factor, best_column, column_low, column_high, matrix, k, columns, goal, LINES)


@triton.jit
def squares_kernel(
    weight, mask, part_count, part_square, n, k, chunks,
    HAS_MASK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Kept entries and the sum of their squares in each chunk of rows of each column: float64 [b, chunks, k]."""
    chunk, matrix = tl.program_id(0), tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    for begin in range(0, k, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        value, kept = load_tile(weight, mask, matrix, row, column, n, k, HAS_MASK)
        wide = value.to(tl.float64)
        at = (matrix.to(tl.int64) * chunks + chunk) * k + column
        tl.store(part_count + at, tl.sum(kept.to(tl.float32), axis=0), mask=column < k)
        tl.store(part_square + at, tl.sum(wide * wide, axis=0), mask=column < k)


@triton.jit
def root_mean_squares_kernel(
    part_count, part_square, column_spread, k, chunks, CHUNKS: tl.constexpr, COLUMNS: tl.constexpr
):
    """sqrt(sum of squares / count) of each column, float64 [b, k]; 0 without a nonzero kept entry."""
    matrix = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    count = tl.zeros([COLUMNS], tl.float64)
    square = tl.zeros([COLUMNS], tl.float64)
    for begin in range(0, chunks, CHUNKS):
        chunk = begin + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & (column < k)[None, :]
        at = (matrix.to(tl.int64) * chunks + chunk)[:, None] * k + column[None, :]
        count += tl.sum(tl.load(part_count + at, mask=inside, other=0.0).to(tl.float64), axis=0)
        square += tl.sum(tl.load(part_square + at, mask=inside, other=0.0), axis=0)
    tl.store(column_spread + matrix * k + column, tl.sqrt(square / tl.maximum(count, 1.0)), mask=column < k)


@triton.jit
def rms_factor_kernel(column_spread, column_factor, k, LINES: tl.constexpr):
    """Each root mean square over their geometric mean, within [1/10, 10]; 1 where it is 0."""
    matrix = tl.program_id(0)
    logs = tl.zeros([LINES], tl.float64)
    live = tl.zeros([LINES], tl.float64)
    for begin in range(0, k, LINES):
        column = begin + tl.arange(0, LINES)
        value = tl.load(column_spread + matrix * k + column, mask=column < k, other=0.0)
        logs += tl.where(value > 0.0, tl.log(tl.where(value > 0.0, value, 1.0)), 0.0)
        live += tl.where(value > 0.0, 1.0, 0.0)
    centre = tl.exp(tl.sum(logs, axis=0) / tl.maximum(tl.sum(live, axis=0), 1.0))
    for begin in range(0, k, LINES):
        column = begin + tl.arange(0, LINES)
        value = tl.load(column_spread + matrix * k + column, mask=column < k, other=0.0)
        factor = tl.minimum(tl.maximum(value / centre, 0.1), 10.0)
        tl.store(column_factor + matrix * k + column, tl.where(value > 0.0, factor, 1.0), mask=column < k)
