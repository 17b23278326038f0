"""A linear over a 2:4 weight in the order of sparse tensor cores: unpack, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .sparse24_unpack import sparse24_unpack


def sparse24_linear(
    x: torch.Tensor, values: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None, n: int
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight = sparse24_unpack(values, columns, n, x.shape[-1])
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).to(x.dtype)
