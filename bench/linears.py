"""What the benchmarks of the linear ops share: a packed module as a contender, and the cases over shapes and tokens."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from prism_kernels.nn import PackedLinear

from . import peers, verify
from .harness import Case, Contender, copies_for
from .peers import Linear
from .problems import Request, random_mask, random_weight

#: Relative error that round-to-nearest with 4 bits in groups of 64 stays below on normal weights.
INT4_BOUND = 0.15
_SEED = 20260101

Maker = Callable[[torch.Tensor, torch.Tensor], list[Linear | None]]


def packed(
    name: str,
    module_class: type[PackedLinear],
    weight: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    bound: float = 0.02,
    small_rows: int = verify.SMALL_ROWS,
    note: str = "",
    by_rows: Callable[[int], dict[str, Any]] = lambda rows: {},
    **options: Any,
) -> Linear:
    """`module_class.from_linear(weight, mask, **options)` with its rotated copies and its check on the first rows.

    `by_rows(n)` gives the options that depend on the number of rows.
    """

    def made(rows: int) -> PackedLinear:
        kept = None if mask is None else mask[:rows].contiguous()
        return module_class.from_linear(verify.linear_of(weight[:rows].clone()), kept, **options, **by_rows(rows))

    module, small = made(len(weight)), made(min(small_rows, len(weight)))
    nbytes = module.resident_nbytes
    count = copies_for(nbytes)
    return Linear(
        name=name,
        copies=[module, *(copy.deepcopy(module) for _ in range(count - 1))],
        run=lambda m, x: m(x),
        nbytes=nbytes,
        note=note or f"{module.bits_per_weight:.2f} bits/weight",
        bound=bound,
        check=partial(verify.check_small, small),
    )


def linear_cases(
    op: str,
    make: Maker,
    request: Request,
    *,
    mask_of: Callable[..., torch.Tensor] | None = random_mask,
    weight_of: Callable[..., torch.Tensor] = random_weight,
) -> Iterator[Case]:
    """One case per shape and number of tokens: dense bf16 first, then what `make(weight, mask)` gives.

    `weight` is pruned by `mask` (all ones where `mask_of` is None), so that every contender computes the same thing.
    """
    for shape_name, (n, k) in request.shapes.items():
        generator = torch.Generator().manual_seed(_SEED)
        weight = weight_of(n, k, generator)
        mask = torch.ones(n, k, dtype=torch.bool) if mask_of is None else mask_of(n, k, generator)
        weight *= mask
        linears = [peers.dense_bf16(weight), *(made for made in make(weight, mask) if made is not None)]
        for m in request.tokens:
            x = torch.randn(m, k, generator=generator).bfloat16()
            contenders = [_contender(linear, x, weight) for linear in linears if m <= (linear.most_tokens or m)]
            yield Case(op, {"shape": shape_name, "n": n, "k": k, "m": m}, contenders, flops=2.0 * m * n * k)


def _contender(linear: Linear, x: torch.Tensor, weight: torch.Tensor) -> Contender:
    ready = linear.prepare(x)
    calls: Sequence[Callable[[], Any]] = [partial(linear.run, item, ready) for item in linear.copies]

    def check() -> None:
        if linear.check is not None:
            linear.check(x)
        verify.assert_close_to_dense(calls[0](), x, weight, linear.bound)

    return Contender(linear.name, calls, linear.nbytes, linear.note, check)
