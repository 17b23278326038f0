"""Two factors of rank min(n, k) / 8 against the dense product that they stand for, and against two dense GEMMs."""

import copy
from functools import partial

import torch
import torch.nn.functional as F

from prism_kernels.formats import LowRankWeight
from prism_kernels.nn import LowRankLinear
from prism_kernels.testing import assert_matches

from . import gpu_linears, verify
from .harness import copies_for
from .linears import linear_cases
from .peers import Linear
from .problems import Request
from .targets import LOW_RANK

OP = "low_rank_linear"


def factors(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """bfloat16 a [rank, k] and b [n, rank]; b @ a has the spread of a trained weight."""
    rank = min(n, k) // 8
    generator = torch.Generator().manual_seed(n + k)
    a, b = torch.randn(rank, k, generator=generator), torch.randn(n, rank, generator=generator)
    return (a * 0.02).bfloat16(), (b / rank**0.5).bfloat16()


def product(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    a, b = factors(n, k)
    return b @ a


def check(module: LowRankLinear, x: torch.Tensor) -> None:
    """As `verify.check_small`; where two dense GEMMs serve, what lies between them is rounded to the dtype of x."""
    if not verify.takes_dense_path(module, x):
        return verify.check_small(module, x)
    hidden = (x.double() @ module.a.double().T).to(x.dtype)
    return assert_matches(module(x), hidden.double() @ module.b.double().T, module.a.shape[0])


def cases(request: Request):
    def make(weight, mask):
        a, b = factors(*weight.shape)
        module = LowRankLinear(LowRankWeight(a, b))
        small = LowRankLinear(LowRankWeight(a, b[: verify.SMALL_ROWS].contiguous()))
        count = copies_for(module.nbytes)
        pairs = [(a.clone(), b.clone()) for _ in range(count)]
        modules = [module, *(copy.deepcopy(module) for _ in range(count - 1))]
        note = f"{module.bits_per_weight:.2f} bits/weight"
        return [
            Linear(LOW_RANK, modules, lambda m, x: m(x), module.nbytes, note, check=partial(check, small)),
            Linear("torch two GEMMs", pairs, lambda p, x: F.linear(F.linear(x, p[0]), p[1]), module.nbytes, "bf16"),
        ]

    return linear_cases(OP, make, request, mask_of=None, weight_of=product)


def gpu_cases(request: Request):
    """Up to 16 tokens, around the crossover to two dense GEMMs."""

    def make(weight, mask):
        a, b = factors(*weight.shape)
        module = LowRankLinear(LowRankWeight(a, b)).cuda()
        small = LowRankLinear(LowRankWeight(a, b[: verify.SMALL_ROWS].contiguous())).cuda()
        count = copies_for(module.nbytes, "cuda")
        pairs = [(a.cuda(), b.cuda()) for _ in range(count)]
        modules = [module, *(copy.deepcopy(module) for _ in range(count - 1))]
        note = f"{module.bits_per_weight:.2f} bits/weight"
        return [
            Linear(LOW_RANK, modules, lambda m, x: m(x), module.nbytes, note, check=partial(check, small)),
            Linear("torch two GEMMs", pairs, lambda p, x: F.linear(F.linear(x, p[0]), p[1]), module.nbytes, "bf16"),
        ]

    few = Request(request.shapes, tuple(m for m in request.tokens if m <= 16), request.quick)
    return gpu_linears.linear_cases(OP, make, few, mask_of=None, weight_of=product)
