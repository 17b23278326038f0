"""What a compression did, linear by linear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..calibration import InputStatistics

# Copies that stay in the cache; where there are products, which may be read from a file each time, larger ones.
_WEIGHTS_AT_A_TIME = 2**17
_WEIGHTS_OF_PRODUCTS = 2**22
_ROWS_OF_PRODUCTS = 256

ErrorMeasure = Literal["output", "output_diagonal", "weight"]


@dataclass(frozen=True)
class LinearReport:
    """One linear.

    Attributes:
        fqn: its full name in the model.
        shape: (n, k) = (out, in).
        method: the stages that really ran.
        format: storage format.
        nbytes: of the packed weight, as stored; bias not counted.
        dense_nbytes: of the weight before.
        bits_per_weight: 8 * nbytes / (n * k).
        sparsity: fraction of weights that the mask prunes.
        error: relative error, a ratio of norms.
        error_measure: what `error` compares: "output" ||X (W - Ŵ)^T|| / ||X W^T|| on the calibration inputs;
            "output_diagonal", the same with X^T X taken as diagonal; "weight" ||W - Ŵ|| / ||W||.
        tokens: calibration tokens behind it.
        seconds: of compressing it, statistics not counted.
        notes: dampings beyond the first, fallbacks.
    """

    fqn: str
    shape: tuple[int, int]
    method: str
    format: str
    nbytes: int
    dense_nbytes: int
    bits_per_weight: float
    sparsity: float
    error: float
    error_measure: ErrorMeasure
    tokens: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass
class CompressionReport:
    """A whole model. `left` names the linears and other block weights that stayed dense, with the reason."""

    recipe: dict[str, Any]
    linears: list[LinearReport] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    block_parameters: int = 0

    @property
    def nbytes(self) -> int:
        return sum(linear.nbytes for linear in self.linears)

    @property
    def dense_nbytes(self) -> int:
        return sum(linear.dense_nbytes for linear in self.linears)

    @property
    def weights(self) -> int:
        """Weights of the compressed linears, pruned ones included."""
        return sum(linear.shape[0] * linear.shape[1] for linear in self.linears)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / max(self.weights, 1)

    @property
    def sparsity(self) -> float:
        return sum(x.sparsity * x.shape[0] * x.shape[1] for x in self.linears) / max(self.weights, 1)

    @property
    def coverage(self) -> float:
        """Compressed weights over all parameters of the decoder blocks."""
        return self.weights / max(self.block_parameters, 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        totals = ("nbytes", "dense_nbytes", "weights", "bits_per_weight", "sparsity", "coverage", "seconds")
        return {
            "recipe": self.recipe,
            "totals": {name: getattr(self, name) for name in totals},
            "linears": [{**asdict(x), "shape": list(x.shape), "notes": list(x.notes)} for x in self.linears],
            "left": dict(self.left),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.linears)} linears, {self.dense_nbytes:,} -> {self.nbytes:,} bytes, "
            f"{self.bits_per_weight:.3f} bits per weight, sparsity {self.sparsity:.4f}, "
            f"{100 * self.coverage:.1f} % of the block parameters, {self.seconds:.1f} s"
        ]
        lines += [f"  {x.fqn}: {note}" for x in self.linears for note in x.notes]
        lines += [f"  left {name}: {why}" for name, why in self.left.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def relative_error(dense: Tensor, decoded: Tensor, statistics: InputStatistics | None) -> tuple[float, ErrorMeasure]:
    """How far `decoded` ([n, k]) is from `dense` (any dtypes), by the best measure that `statistics` allow.

    Some rows at a time, so that copies stay small."""
    products = None if statistics is None else statistics.products
    measure: ErrorMeasure = "weight" if statistics is None else "output_diagonal" if products is None else "output"

    def totals(part: Tensor) -> Iterator[Tensor]:
        if products is not None:
            yield from (sums.sum() for sums in products.quadratic(part).split(_ROWS_OF_PRODUCTS))
            return
        squares = part.square()
        if statistics is None:
            yield squares.sum(dtype=torch.float64)
        else:
            yield (squares.sum(0, dtype=torch.float64) * statistics.sum_squares).sum()

    wrong = right = torch.zeros((), dtype=torch.float64, device=dense.device)
    rows = (_WEIGHTS_AT_A_TIME if products is None else _WEIGHTS_OF_PRODUCTS) // max(dense.shape[1], 1)
    rows = max(1, rows) if products is None else max(1, rows // _ROWS_OF_PRODUCTS) * _ROWS_OF_PRODUCTS
    for ours, theirs in zip(dense.split(rows), decoded.split(rows), strict=True):
        part = ours.to(torch.float32, copy=True)
        right = sum(totals(part), right)
        wrong = sum(totals(part.sub_(theirs)), wrong)
    if float(right) <= 0:
        return float(float(wrong) > 0), measure
    return float((wrong.clamp(min=0) / right).sqrt()), measure
