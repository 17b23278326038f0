"""A linear over a CSR weight: unpack, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .csr_unpack import csr_unpack


def csr_linear(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    row_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    weight = csr_unpack(values, columns, row_offsets, x.shape[-1])
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
