"""N:M and top-k masks of float32 scores against torch: `topk` with a scatter, and `kthvalue` with a comparison."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from prism_kernels import ops
from prism_kernels.reference.nm_mask import nm_mask as nm_reference
from prism_kernels.reference.topk_mask import topk_mask as topk_reference

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


def _case(name: str, kind: str, scores: torch.Tensor, peer: Callable, own: Callable, exact: Callable) -> Case:
    copies = [scores, *(scores.clone() for _ in range(copies_for(scores.nbytes) - 1))]

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
