"""Factors of an eighth of the smaller size against two dense calls over the same factors, and the dense product."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from prism_kernels.formats import LowRankWeight
from prism_kernels.nn import LowRankLinear

from . import verify
from .harness import Case, Contender, copies_for
from .problems import Request
from .targets import BF16, LOW_RANK

OP = "low_rank_linear"
TWO_CALLS = "two F.linear bf16"
_BOUND = 0.02


def cases(request: Request) -> Iterator[Case]:
    for name, (n, k) in request.shapes.items():
        generator = torch.Generator().manual_seed(0)
        rank = min(n, k) // 8
        a = torch.randn(rank, k, generator=generator).mul_(0.02).bfloat16()
        b = torch.randn(n, rank, generator=generator).mul_(0.02).bfloat16()
        dense = (b.float() @ a.float()).bfloat16()
        for m in request.tokens:
            x = torch.randn(m, k, generator=generator).bfloat16()
            yield Case(OP, {"shape": name, "n": n, "k": k, "m": m, "rank": rank}, _contenders(x, a, b, dense))


def _contenders(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, dense: torch.Tensor) -> list[Contender]:
    nbytes = a.nbytes + b.nbytes
    weights = [dense.clone() for _ in range(copies_for(dense.nbytes))]
    factors = [(a.clone(), b.clone()) for _ in range(copies_for(nbytes))]
    modules = [LowRankLinear(LowRankWeight(*pair)) for pair in factors]
    two_calls = [lambda p=pair: F.linear(F.linear(x, p[0]), p[1]) for pair in factors]
    own = [partial(module, x) for module in modules]

    def check() -> None:
        verify.assert_close_to_dense(own[0](), x, dense, _BOUND)

    return [
        Contender(BF16, [lambda w=w: F.linear(x, w) for w in weights], dense.nbytes),
        Contender(TWO_CALLS, two_calls, nbytes),
        Contender(LOW_RANK, own, nbytes, f"rank {a.shape[0]}", check),
    ]
