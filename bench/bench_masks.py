"""N:M and top-k masks of float32 scores against torch: `topk` with a scatter, and `kthvalue` with a comparison; on a
GPU also the scores of 16x16 tiles, and a sort instead of `kthvalue`, which runs in a single block there."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from prism_kernels import ops
from prism_kernels.reference.block_scores import block_scores as scores_reference
from prism_kernels.reference.nm_mask import nm_mask as nm_reference
from prism_kernels.reference.topk_mask import topk_mask as topk_reference
from prism_kernels.testing import assert_matches

from .gpu_linears import beside_on_triton, gpu_backend
from .harness import Case, Contender, copies_for
from .problems import Request

OP = "masks"


def torch_nm(scores: torch.Tensor) -> torch.Tensor:
    groups = scores.view(len(scores), -1, 4)
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(2).indices, True).view_as(scores)


def torch_rows(scores: torch.Tensor) -> torch.Tensor:
    kept = scores.topk(scores.shape[1] // 2, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, kept, True)


def torch_matrix(scores: torch.Tensor) -> torch.Tensor:
    return scores > scores.flatten().kthvalue(scores.numel() - scores.numel() // 2).values


def torch_matrix_by_sort(scores: torch.Tensor) -> torch.Tensor:
    return scores > scores.flatten().sort().values[scores.numel() - scores.numel() // 2 - 1]


def torch_tiles(scores: torch.Tensor) -> torch.Tensor:
    """Of [n, k], both multiples of 16."""
    return scores.unflatten(0, (-1, 16)).unflatten(2, (-1, 16)).sum((1, 3))


def cases(request: Request) -> Iterator[Case]:
    for name, (n, k) in request.shapes.items():
        scores = torch.rand(n, k, generator=torch.Generator().manual_seed(0))
        nm: dict[str, Any] = {"n_keep": 2, "m": 4}
        yield _case(name, "2:4", scores, torch_nm, partial(ops.nm_mask, **nm), partial(nm_reference, **nm))
        for title, peer, keep, scope in (
            ("top half of a row", torch_rows, k // 2, "row"),
            ("top half of the matrix", torch_matrix, n * k // 2, "matrix"),
        ):
            own, exact = (partial(f, keep=keep, scope=scope) for f in (ops.topk_mask, topk_reference))
            yield _case(name, title, scores, peer, own, exact)


def gpu_cases(request: Request) -> Iterator[Case]:
    """As `cases`, on a GPU; torch's selections run launch by launch, as their users run them."""
    for name, (n, k) in request.shapes.items():
        scores = torch.rand(n, k, generator=torch.Generator().manual_seed(0)).cuda()
        nm: dict[str, Any] = {"n_keep": 2, "m": 4}
        yield _gpu_case(name, "2:4", "nm_mask", scores, torch_nm, nm, nm_reference)
        for title, peer, keep, scope in (
            ("top half of a row", torch_rows, k // 2, "row"),
            ("top half of the matrix", torch_matrix_by_sort, n * k // 2, "matrix"),
        ):
            options = {"keep": keep, "scope": scope}
            yield _gpu_case(name, title, "topk_mask", scores, peer, options, topk_reference)
        yield _gpu_scores_case(name, scores)


def _gpu_case(
    name: str, kind: str, op: str, scores: torch.Tensor, peer: Callable, options: dict[str, Any], reference: Callable
) -> Case:
    case = _case(name, kind, scores, peer, partial(getattr(ops, op), **options), partial(reference, **options), "cuda")
    case.op, case.isa = op, "cuda"
    case.contenders[0].eager = True
    case.contenders[1].served_by = gpu_backend(op)
    case.contenders += beside_on_triton(op, case.contenders[1])
    return case


def _gpu_scores_case(name: str, scores: torch.Tensor) -> Case:
    n, k = scores.shape
    copies = [scores, *(scores.clone() for _ in range(copies_for(scores.nbytes, "cuda") - 1))]

    def same() -> None:
        assert_matches(ops.block_scores(scores), scores_reference(scores.double()), 256)

    own = Contender(
        "prism block scores", [lambda s=s: ops.block_scores(s) for s in copies], scores.nbytes, "", same,
        gpu_backend("block_scores"),
    )  # fmt: skip
    torch_own = Contender("torch block scores", [lambda s=s: torch_tiles(s) for s in copies], scores.nbytes)
    contenders = [torch_own, own, *beside_on_triton("block_scores", own)]
    problem = {"shape": name, "n": n, "k": k, "kind": "block scores"}
    return Case("block_scores", problem, contenders, isa="cuda")


def _case(
    name: str, kind: str, scores: torch.Tensor, peer: Callable, own: Callable, exact: Callable, device: str = "cpu"
) -> Case:
    copies = [scores, *(scores.clone() for _ in range(copies_for(scores.nbytes, device) - 1))]

    def calls(run: Callable) -> list[Callable[[], Any]]:
        return [lambda s=s: run(s) for s in copies]

    def same() -> None:
        assert torch.equal(own(scores), exact(scores)), "mask must equal the reference's"

    nbytes = scores.nbytes + scores.numel()
    contenders = [
        Contender(f"torch {kind}", calls(peer), nbytes, "ties kept as they fall"),
        Contender(f"prism {kind}", calls(own), nbytes, "exact count, lower index pruned first", same),
    ]
    n, k = scores.shape
    return Case(OP, {"shape": name, "n": n, "k": k, "kind": kind}, contenders)
