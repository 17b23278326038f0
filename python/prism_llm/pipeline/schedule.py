"""The schedule of progressive three-tier pruning: a CSV file with one row per iteration, checked before any work."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

_COLUMNS = ("iteration", "dense", "mid_2_4", "topk")
#: Read for people only: they follow from the shares.
_DERIVED = ("dense_to_2_4", "mid_2_4_to_topk")
_EPOCHS = "epochs"


@dataclass(frozen=True)
class ScheduleRow:
    """One iteration: the shares of blocks of every matrix that it ends with, and how long it trains after.

    Attributes:
        iteration: from 1.
        dense, mid_2_4, topk: shares that sum to 1.
        epochs: of fine-tuning after it; 0 for none.
    """

    iteration: int
    dense: float
    mid_2_4: float
    topk: float
    epochs: float = 0.0

    @property
    def shares(self) -> tuple[float, float, float]:
        return self.dense, self.mid_2_4, self.topk

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """The iterations in order."""

    rows: tuple[ScheduleRow, ...]

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Reads a CSV file with the columns iteration,dense,mid_2_4,topk and perhaps epochs.

        dense_to_2_4 and mid_2_4_to_topk may stand there too; they follow from the others.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a column is missing, unknown or doubled; a value is no number or out of range; a row's shares do
                not sum to 1; iterations do not run 1, 2, 3, ...; dense rises or topk falls. Names the line.
        """
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"Schedule: {path} must be a CSV file, not found")
        try:
            with source.open(encoding="utf-8-sig", newline="") as stream:
                lines = [(number, row) for number, row in enumerate(csv.reader(stream), 1) if any(map(str.strip, row))]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"Schedule: {path} must be a CSV file, got: {error}") from error
        if not lines:
            raise ValueError(f"Schedule: {path} must have a header and a row, got an empty file")
        columns = [name.strip() for name in lines[0][1]]
        _check_columns(path, columns)
        rows: list[ScheduleRow] = []
        for number, values in lines[1:]:
            rows.append(_row(f"Schedule: {path}, line {number}", columns, [v.strip() for v in values], rows))
        if not rows:
            raise ValueError(f"Schedule: {path} must have at least one iteration, got a header alone")
        return cls(tuple(rows))

    def row(self, iteration: int) -> ScheduleRow:
        """The row of an iteration; raises ValueError."""
        if not 1 <= iteration <= len(self.rows):
            raise ValueError(f"Schedule: iteration must be from 1 to {len(self.rows)}, got {iteration}")
        return self.rows[iteration - 1]

    def to_list(self) -> list[dict[str, Any]]:
        return [row.to_dict() for row in self.rows]


def _check_columns(path: str | Path, columns: list[str]) -> None:
    known = {*_COLUMNS, *_DERIVED, _EPOCHS}
    missing = [name for name in _COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in known]
    if missing or unknown or len(set(columns)) < len(columns):
        raise ValueError(
            f"Schedule: {path} must have the columns {', '.join(_COLUMNS)} and may have "
            f"{', '.join((_EPOCHS, *_DERIVED))}, each once; got {', '.join(columns)}"
        )


def _row(where: str, columns: list[str], values: list[str], before: list[ScheduleRow]) -> ScheduleRow:
    if len(values) != len(columns):
        raise ValueError(f"{where}: must have {len(columns)} values, got {len(values)}")
    cells = dict(zip(columns, values, strict=True))
    numbers = {name: _number(where, name, cells[name]) for name in cells if name not in _DERIVED}
    iteration, shares = numbers["iteration"], [numbers[name] for name in _COLUMNS[1:]]
    if iteration != len(before) + 1:
        raise ValueError(
            f"{where}: iteration must be {len(before) + 1} (they run 1, 2, 3, ...), got {cells['iteration']}"
        )
    for name, share in zip(_COLUMNS[1:], shares, strict=True):
        if not 0 <= share <= 1:
            raise ValueError(f"{where}: {name} must be in [0, 1], got {cells[name]}")
    if sum(shares) != 1:
        raise ValueError(f"{where}: dense + mid_2_4 + topk must be 1, got {float(sum(shares)):g}")
    epochs = numbers.get(_EPOCHS, Fraction(0))
    if epochs < 0:
        raise ValueError(f"{where}: epochs must be at least 0, got {cells[_EPOCHS]}")
    row = ScheduleRow(int(iteration), float(shares[0]), float(shares[1]), float(shares[2]), float(epochs))
    last = before[-1] if before else ScheduleRow(0, 1.0, 0.0, 0.0)
    if row.dense > last.dense:
        raise ValueError(f"{where}: dense must not rise (blocks never go back), got {row.dense} after {last.dense}")
    if row.topk < last.topk:
        raise ValueError(f"{where}: topk must not fall (blocks never go back), got {row.topk} after {last.topk}")
    return row


def _number(where: str, name: str, text: str) -> Fraction:
    """Exactly what is written: 0.9 + 0.1 is 1."""
    try:
        if "/" not in text:
            return Fraction(text)
    except (ValueError, ZeroDivisionError):
        pass
    raise ValueError(f"{where}: {name} must be a decimal number, got {text!r}")
