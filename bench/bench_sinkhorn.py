"""Masked Sinkhorn factors against the mat-vec form in torch, the honest baseline: an eager loop is 40x slower."""

from collections.abc import Iterator

import torch

from prism_kernels import ops

from .harness import Case, Contender
from .linears import random_mask
from .problems import QUICK_SHAPES, SHAPES

OP = "sinkhorn"
ITERATIONS = 16


def matvec_form(weight: torch.Tensor, squared: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Row-then-column normalisation by masked population std; pruned entries of `weight` and `squared` are zero."""
    row = torch.ones(weight.shape[0])
    column = torch.ones(weight.shape[1])
    for _ in range(ITERATIONS):
        inverse = 1 / column
        mean = (weight @ inverse) / row / rows
        row = row * ((squared @ inverse.square()) / row.square() / rows - mean.square()).clamp_min(1e-8).sqrt()
        inverse = 1 / row
        mean = (inverse @ weight) / column / columns
        variance = (inverse.square() @ squared) / column.square() / columns - mean.square()
        column = column * variance.clamp_min(1e-8).sqrt()
    return column


def cases(quick: bool) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for name, (n, k) in (QUICK_SHAPES if quick else SHAPES).items():
        mask = random_mask(n, k, generator)
        weight = torch.randn(n, k, generator=generator).mul_(0.02) * mask
        squared, rows, columns = weight.square(), mask.sum(1), mask.sum(0)
        nbytes = weight.numel() * 4 * ITERATIONS
        yield Case(
            OP,
            {"shape": name, "n": n, "k": k, "variant": "prism", "iterations": ITERATIONS},
            [
                Contender(
                    "torch mat-vec form", [lambda a=(weight, squared, rows, columns): matvec_form(*a)], 4 * nbytes
                ),
                Contender(
                    "prism sinkhorn",
                    [lambda w=weight, m=mask: ops.sinkhorn(w, m, variant="prism", iterations=ITERATIONS)],
                    nbytes,
                ),
            ],
        )
