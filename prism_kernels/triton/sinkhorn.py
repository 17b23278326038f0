"""Sinkhorn factors: launches of the kernels in `_sinkhorn.py` and `_sinkhorn_finish.py`, without a synchronization.

An iteration reads the weight once from memory for rows and columns together ("prism" reads it again from the cache),
and decides on the device: a matrix that "sinq" has finished costs empty programs. Batches share the launches. Bound:
bytes of weight and mask per iteration, and 0.75 bytes per entry of column samples within the second cache.
"""

from typing import Any

import torch

from ._launch import cdiv, launch, next_power_of_2
from ._sinkhorn import extremes_kernel, live_columns_kernel, merge_columns_kernel, spreads_kernel, unit_kernel
from ._sinkhorn_finish import rms_factor_kernel, root_mean_squares_kernel, sinq_step_kernel, squares_kernel

_TILE = 4096


class _Problem:
    """Shapes, tiles and the arguments that kernels share."""

    def __init__(self, weight: torch.Tensor, mask: torch.Tensor | None) -> None:
        self.b, self.n, self.k = weight.shape
        self.device = weight.device
        columns = min(max(next_power_of_2(self.k), 16), 256)
        rows = min(_TILE // columns, 32)
        self.chunks = cdiv(self.n, rows)
        self.row_grid = (self.chunks, self.b)
        self.column_grid = (cdiv(self.k, 32), self.b)
        masked: dict[str, Any] = {"weight": weight, "mask": weight if mask is None else mask.view(torch.uint8)}
        self.row_pass = masked | {
            "n": self.n, "k": self.k, "chunks": self.chunks, "HAS_MASK": mask is not None, "ROWS": rows,
            "COLUMNS": columns, "num_warps": 8,
        }  # fmt: skip
        chunks = min(max(next_power_of_2(self.chunks), 2), 32)
        self.column_pass: dict[str, Any] = {
            "k": self.k,
            "chunks": self.chunks,
            "CHUNKS": chunks,
            "COLUMNS": 32,
            "num_warps": 4,
        }

    def lines(self, size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(self.b, size, dtype=dtype, device=self.device)

    def parts(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(self.b, self.chunks, self.k, dtype=dtype, device=self.device)


def _rms(problem: _Problem, column_factor: torch.Tensor) -> None:
    parts: dict[str, Any] = {"part_count": problem.parts(), "part_square": problem.parts(torch.float64)}
    spread = problem.lines(problem.k)
    launch(squares_kernel, problem.row_grid, **parts, **problem.row_pass)
    launch(root_mean_squares_kernel, problem.column_grid, **parts, column_spread=spread, **problem.column_pass)
    launch(
        rms_factor_kernel, (problem.b,), column_spread=spread, column_factor=column_factor, k=problem.k, LINES=1024,
        num_warps=8,
    )  # fmt: skip


def _prepare(problem: _Problem) -> dict[str, Any]:
    """Extremes of all lines, and the power of two of each matrix."""
    f32 = torch.float32
    rows: dict[str, Any] = {"row_low": problem.lines(problem.n, f32), "row_high": problem.lines(problem.n, f32)}
    columns: dict[str, Any] = {
        "column_low": problem.lines(problem.k, f32),
        "column_high": problem.lines(problem.k, f32),
    }
    parts: dict[str, Any] = {"part_low": problem.parts(), "part_high": problem.parts()}
    unit = torch.empty(problem.b, dtype=f32, device=problem.device)
    launch(extremes_kernel, problem.row_grid, **rows, **parts, **problem.row_pass)
    launch(live_columns_kernel, problem.column_grid, **columns, **parts, **problem.column_pass)
    launch(unit_kernel, (problem.b,), **rows, unit=unit, n=problem.n, LINES=1024, num_warps=4)
    return {"rows": rows, "columns": columns, "unit": unit}


def _iterate(
    problem: _Problem, prism: bool, iterations: int, column_factor: torch.Tensor, row_factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors after the iterations: the last ones of "prism", the best ones of "sinq"."""
    made = _prepare(problem)
    rows, columns, unit = made["rows"], made["columns"], made["unit"]
    done = torch.zeros(problem.b, dtype=torch.int32, device=problem.device)
    least = torch.full((problem.b,), float("inf"), dtype=torch.float64, device=problem.device)
    target = torch.empty_like(least)
    best = column_factor.clone(), row_factor.clone()
    spreads: dict[str, Any] = {"row_spread": problem.lines(problem.n), "column_spread": problem.lines(problem.k)}
    parts: dict[str, Any] = {name: problem.parts() for name in ("part_count", "part_mean", "part_square")}
    shared: dict[str, Any] = {"unit": unit, "column_factor": column_factor, "done": done, **parts}
    shared |= {"PRISM": prism, "CORRECTION": 0 if prism else 1}
    for iteration in range(iterations):
        launch(
            spreads_kernel, problem.row_grid, row_factor=row_factor, row_spread=spreads["row_spread"], **rows, **shared,
            **problem.row_pass,
        )  # fmt: skip
        launch(
            merge_columns_kernel, problem.column_grid, column_spread=spreads["column_spread"], **columns, **shared,
            **problem.column_pass,
        )  # fmt: skip
        if not prism:
            launch(
                sinq_step_kernel, (problem.b,), **spreads, column_factor=column_factor, row_factor=row_factor,
                best_column=best[0], best_row=best[1], **columns, **rows, target=target, least=least, done=done,
                n=problem.n, k=problem.k, FIRST=iteration == 0, LINES=2048, num_warps=8,
            )  # fmt: skip
    return (column_factor, row_factor) if prism else best


def sinkhorn(
    weight: torch.Tensor, mask: torch.Tensor | None, variant: str, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ops.sinkhorn` on weight [b, n, k] of any float dtype."""
    b, n, k = weight.shape
    options: dict[str, Any] = {"dtype": torch.float64, "device": weight.device}
    column, row = torch.ones(b, k, **options), torch.ones(b, n, **options)
    if b * n * k:
        problem = _Problem(weight, mask)
        if variant == "rms":
            _rms(problem, column)
        elif iterations:
            column, row = _iterate(problem, variant == "prism", iterations, column, row)
    return column.float(), row.float()
