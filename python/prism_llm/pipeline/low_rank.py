"""The low-rank stage of a recipe on one weight: factors instead of it, of what pruning left, or of what it lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from prism_kernels.formats import LowRankWeight
from prism_kernels.swap import matches

from ..calibration import InputStatistics
from ..lowrank import break_even_rank, factorize
from ..memory import return_free_memory
from ..pruning import HessianSolver
from .layer import CompressedWeight, compress_weight, require_finite
from .recipe import Recipe

#: Short names of `--target-modules`, as the original commands have them.
_SHORT = {name: name for name in ("q", "k", "v", "gate", "up", "down")} | {"o": "(?:o|out)"}


def module_patterns(text: str) -> tuple[str, ...]:
    """The patterns of a list such as "q,k,v,o": short names stand for "q_proj" and the like, others for themselves."""
    if text.startswith("re:"):
        return (text,)
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(rf"re:(?:.*\.)?{_SHORT[name]}(?:_proj)?" if name in _SHORT else name for name in names)


def low_rank_names(recipe: Recipe, linears: Iterable[tuple[str, nn.Linear]]) -> set[str]:
    """Those of the chosen linears that get factors.

    Raises:
        ValueError: a pattern of `low_rank_targets` matches none.
    """
    if recipe.low_rank is None:
        return set()
    chosen, found = list(linears), set()
    for pattern in recipe.low_rank_targets:
        names = {name for name, linear in chosen if matches(pattern, name, linear)}
        if not names:
            raise ValueError(
                f"compress: low_rank_targets must each match a linear to compress, got {pattern!r}, which matches none "
                f"of {[name for name, _ in chosen[:8]]}"
            )
        found |= names
    return found


@torch.no_grad()
def compress_low_rank(
    name: str,
    weight: Tensor,
    recipe: Recipe,
    statistics: InputStatistics | None = None,
    solver: HessianSolver | None = None,
    pruned: int | None = None,
) -> CompressedWeight:
    """`compress_weight` with the factors that `recipe.low_rank` asks for.

    Args:
        solver: over `statistics`; needed for the weighting "activations" and for compensation. Where its Hessian has no
            factor, inputs weigh alike and the notes say so.

    Raises:
        ValueError: the weight, or what a stage made of it, is not finite.
    """
    assert recipe.low_rank is not None
    dense = weight.detach().float()
    require_finite(name, "weight", dense)
    mask, base, target, notes = None, None, dense, list[str]()
    if recipe.low_rank_of == "weight":
        done = _only_factors(recipe)
    else:
        plain = recipe.replace(sparsity=recipe.sparsity, low_rank=None)
        if recipe.low_rank_of == "pruned":
            plain = plain.replace(sparsity=recipe.sparsity, bits=None)
        first = compress_weight(name, weight, plain, statistics, solver, pruned=pruned)
        done, notes = first.recipe.replace(sparsity=first.recipe.sparsity, low_rank=recipe.low_rank), first.notes
        target = first.packed.to_dense(torch.float32)
        if recipe.low_rank_of == "residual":
            mask, base, target = first.mask, first.packed, dense - target
    factor = None
    if recipe.low_rank_weighting == "activations":
        if solver is None:
            raise ValueError(f"compress_low_rank: solver must be given for weighting activations, got None ({name})")
        known = len(solver.notes)
        factor = solver.output_factor()
        notes += solver.notes[known:]
        if factor is None:
            notes.append("fallback: svd with equal weights of inputs")
    with _held_in_float32(weight, dense):
        return_free_memory()
        found = factorize(target, recipe.low_rank, factor)
        return_free_memory()
    a, b = found.a.to(weight.dtype), found.b.to(weight.dtype)
    require_finite(name, f"factor a in {weight.dtype}", a)
    require_finite(name, f"factor b in {weight.dtype}", b)
    even = break_even_rank(*dense.shape)
    if found.rank > even:
        notes.append(f"factors of rank {found.rank} are larger than the matrix, which holds as much as rank {even:.1f}")
    return CompressedWeight(LowRankWeight(a, b, base), mask, done, notes)


@contextmanager
def _held_in_float32(weight: Tensor, dense: Tensor) -> Iterator[None]:
    """Frees the memory of a 16-bit `weight` (unless others share it) while `dense`, its float32, is there anyway.

    A decomposition is the largest thing in memory: seven matrices in float32 with LAPACK's workspace."""
    dtype = weight.dtype
    if dtype.itemsize >= torch.float32.itemsize:
        yield
        return
    weight.data = dense
    try:
        yield
    finally:
        weight.data = dense.to(dtype)  # the same values: float32 holds them all


def _only_factors(recipe: Recipe) -> Recipe:
    """What is done to a weight of which the factors are all that stays."""
    nothing = {"pattern": "unstructured", "scope": "row", "ratios": "uniform", "score": "magnitude", "permute": "none"}
    nothing |= {"compensate": "none", "round": "rtn"}
    return recipe.replace(sparsity=0.0, bits=None, **nothing)
