"""Inverses of symmetric positive definite matrices in panels, in place: no second matrix, dense products of blocks.

With H in blocks of rows and columns, all by the textbook block recurrences (Golub & Van Loan, Matrix Computations,
4.2.9; Higham, Accuracy and Stability of Numerical Algorithms, 14.2):

    H = U^T U       U upper, from the first row of blocks to the last
    U^-1            from the last row of blocks to the first
    H^-1            = U^-1 U^-T
    H = R R^T       R upper, from the last column of blocks to the first; R^-1 is the upper Cholesky factor of H^-1
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..calibration.panels import UpperPanels


def invert_(matrix: UpperPanels) -> bool:
    """Replaces a symmetric positive definite matrix by its inverse; False, with no meaning left in it, where it is not
    positive definite in its dtype. k^3 multiplications and additions, and memory of one panel."""
    if not _factor_(matrix):
        return False
    _invert_upper_(matrix)
    _multiply_by_transpose_(matrix)
    return True


def invert_to_factor_(matrix: UpperPanels) -> bool:
    """Replaces a symmetric positive definite matrix H by U, the upper triangular matrix with U^T U = H^-1; else as
    `invert_`. Two thirds of its work."""
    if not _factor_backwards_(matrix):
        return False
    _invert_upper_(matrix)
    return True


def _factor_(matrix: UpperPanels) -> bool:
    """H -> U with U^T U = H."""
    for index, panel in enumerate(matrix.panels):
        b = panel.shape[0]
        factor, info = torch.linalg.cholesky_ex(panel[:, :b], upper=True)
        if int(info):
            return False
        panel[:, :b] = factor
        panel[:, b:] = torch.linalg.solve_triangular(factor.T, panel[:, b:], upper=False)
        at = b
        for below in matrix.panels[index + 1 :]:
            below.addmm_(panel[:, at : at + below.shape[0]].T, panel[:, at:], alpha=-1)
            at += below.shape[0]
    return True


def _factor_backwards_(matrix: UpperPanels) -> bool:
    """H -> R with R R^T = H."""
    panels, width = matrix.panels, matrix.width
    for index in reversed(range(len(panels))):
        own = panels[index]
        b = own.shape[0]
        right = own[:, b:]
        block = own[:, :b].addmm(right, right.T, alpha=-1)
        # Turned by half a turn, an upper factor is a lower one.
        turned, info = torch.linalg.cholesky_ex(block.flip(0, 1))
        if int(info):
            return False
        factor = turned.flip(0, 1)
        own[:, :b] = factor
        for above in range(index):
            at = (index - above) * width
            column = panels[above][:, at : at + b]
            column.addmm_(panels[above][:, at + b :], right.T, alpha=-1)
            column.copy_(torch.linalg.solve_triangular(factor.T, column, upper=False, left=False))
    return True


def _invert_upper_(matrix: UpperPanels) -> None:
    """U -> U^-1, both upper triangular."""
    for index in reversed(range(len(matrix.panels))):
        panel = matrix.panels[index]
        b = panel.shape[0]
        identity = torch.eye(b, dtype=panel.dtype, device=panel.device)
        inverse = torch.linalg.solve_triangular(panel[:, :b], identity, upper=True)
        panel[:, :b] = inverse
        sums = torch.zeros_like(panel[:, b:])
        at = 0
        for below in matrix.panels[index + 1 :]:
            sums[:, at:].addmm_(panel[:, b + at : b + at + below.shape[0]], below)
            at += below.shape[0]
        torch.mm(inverse.neg(), sums, out=panel[:, b:])


def _multiply_by_transpose_(matrix: UpperPanels) -> None:
    """V -> V V^T of an upper triangular V."""
    for index, panel in enumerate(matrix.panels):
        result: Tensor = torch.empty_like(panel)
        at = 0
        for other in matrix.panels[index:]:
            torch.mm(panel[:, at:], other.T, out=result[:, at : at + other.shape[0]])
            at += other.shape[0]
        panel.copy_(result)
