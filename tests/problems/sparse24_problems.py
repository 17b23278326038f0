"""2:4 weights that the tests of the sparse24 ops share, on the CPU and on a GPU."""

from dataclasses import dataclass

import torch

from bitmap_problems import quad_mask
from prism_kernels import ops
from prism_kernels.formats._sparse24 import fill_quads
from prism_kernels.reference.panels import pack_zero, rows_to_panels
from prism_kernels.testing import LinearProblem

DTYPES = (torch.float16, torch.bfloat16)
#: Multiples of 32: a step, a tile, neither of them, longer than the rows.
GROUPS = (32, 64, 96, 128, 4096)
#: Both sides of every number of tokens that a kernel takes at once.
TOKENS = (0, 1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 130)
#: Beside those of all linears: several blocks, k split between blocks.
MORE_PROBLEMS = (LinearProblem("split_k", 9, 33, 2056), LinearProblem("blocks", 40, 300, 576))


def values(n: int, k: int, dtype: torch.dtype, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A pruned weight [n, k] and its mask; some quads keep fewer than 2."""
    mask = quad_mask(n, k, generator, 0.8)
    return torch.where(mask, torch.randn(n, k, generator=generator), 0).to(dtype), mask


@dataclass
class Codes:
    """The tensors of `sparse24_dual_shift_linear` after x, and the weight without its column scale in float64."""

    tensors: tuple[torch.Tensor, ...]
    column_scale: torch.Tensor
    unscaled: torch.Tensor
    n: int
    group_size: int

    def exact(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """float64 [..., n] of what the op computes: x * column_scale is rounded to the dtype of x."""
        scaled = (x.float() * self.column_scale.float()).to(x.dtype).double()
        y = scaled @ self.unscaled.T
        return y if bias is None else y + bias.double()


def codes(n: int, k: int, group_size: int, generator: torch.Generator) -> Codes:
    mask, groups = fill_quads("test", quad_mask(n, k, generator)), -(-k // group_size)
    steps = torch.randint(16, (n, k), generator=generator, dtype=torch.uint8)
    zero = torch.randint(16, (n, groups), generator=generator, dtype=torch.uint8)
    scale = (0.01 + torch.rand(n, groups, generator=generator)).bfloat16()
    column_scale = (0.5 + torch.rand(k, generator=generator)).bfloat16()
    group = torch.arange(k) // group_size
    exact = (steps.double() - zero.double()[:, group]) * scale.double()[:, group]
    packed = ops.sparse24_pack(steps, mask)
    tensors = (*packed, rows_to_panels(scale), pack_zero(zero, 4), column_scale)
    return Codes(tensors, column_scale, torch.where(mask, exact, 0.0), n, group_size)
