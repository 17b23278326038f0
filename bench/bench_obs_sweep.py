"""The compensated sweep over all columns of a matrix, block by block, against the Python column loop; same result.

Measured twice: the blocks alone, which is the op, and with the dense update of the columns behind each block, which
both sides share and which bounds what a user sees.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from prism_kernels import ops
from prism_kernels.reference.obs_sweep import obs_sweep as column_loop

from .gpu_linears import beside_on_triton, gpu_backend
from .harness import Case, Contender
from .problems import GROUP_SIZE, Request, random_mask
from .targets import COLUMN_LOOP, OBS_SWEEP

OP = "obs_sweep"
BLOCK = 128
Sweep = Callable[..., tuple[torch.Tensor, ...]]


def inverse_factor(k: int, generator: torch.Generator) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of a damped Hessian of correlated inputs, float32 [k, k]."""
    inputs = torch.randn(k + 64, k, generator=generator)
    inputs[:, 1:] += 0.5 * inputs[:, :-1]
    hessian = inputs.T @ inputs / len(inputs) + 0.1 * torch.eye(k)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True).contiguous()


def settings(bits: int) -> dict[str, Any]:
    grid = {"bits": bits, "group_size": GROUP_SIZE if bits else 0}
    return {"n_keep": 0, "m": 0, "column_scale": None, "scale": None, "zero": None} | grid


def blocks_of(weight: torch.Tensor, factor: torch.Tensor, mask: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """The arguments of each block, laid out as the op takes them."""
    ranges = [slice(begin, begin + BLOCK) for begin in range(0, weight.shape[1], BLOCK)]
    return [(weight[:, r].contiguous(), factor[r, r].contiguous(), mask[:, r].contiguous()) for r in ranges]


def sweep_alone(run: Sweep, blocks: list[tuple[torch.Tensor, ...]], bits: int) -> list[tuple[torch.Tensor, ...]]:
    return [run(*block, **settings(bits)) for block in blocks]


def sweep(run: Sweep, weight: torch.Tensor, factor: torch.Tensor, mask: torch.Tensor, bits: int):
    """Compensated weight and codes of the whole matrix [n, k], each block's error moved into what lies behind it."""
    weight, codes = weight.clone(), []
    for begin in range(0, weight.shape[1], BLOCK):
        block = slice(begin, begin + BLOCK)
        square, kept = factor[block, block].contiguous(), mask[:, block].contiguous()
        done, error, _, found, _, _ = run(weight[:, block].contiguous(), square, kept, **settings(bits))
        weight[:, block] = done
        codes.append(found)
        weight[:, begin + BLOCK :] -= error @ factor[block, begin + BLOCK :]
    return weight, torch.cat(codes, 1)


def cases(request: Request) -> Iterator[Case]:
    for name, (n, k) in request.shapes.items():
        if name in ("mlp_up", "mlp_down"):
            continue  # the loop would take minutes, and these columns are no different
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(n, k, generator=generator).mul_(0.02)
        mask, factor = random_mask(n, k, generator), inverse_factor(k, generator)
        for bits in (0, 4):
            for update in (False, True):
                yield _case(name, weight, mask, factor, bits, update)


def gpu_cases(request: Request) -> Iterator[Case]:
    """The blocks alone, without and with rounding; the loop runs as its users run it, launch by launch."""
    for name, (n, k) in request.shapes.items():
        if name in ("mlp_up", "mlp_down"):
            continue
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(n, k, generator=generator).mul_(0.02).cuda()
        mask, factor = random_mask(n, k, generator).cuda(), inverse_factor(k, generator).cuda()
        for bits in (0, 4):
            case = _case(name, weight, mask, factor, bits, update=False)
            case.isa = "cuda"
            case.contenders[0].eager = True
            case.contenders[1].served_by = gpu_backend(OP)
            case.contenders += beside_on_triton(OP, case.contenders[1])
            yield case


def _case(name: str, weight: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, bits: int, update: bool) -> Case:
    n, k = weight.shape
    blocks = blocks_of(weight, factor, mask)

    def run(one: Sweep):
        return sweep(one, weight, factor, mask, bits) if update else sweep_alone(one, blocks, bits)

    def timed(one: Sweep) -> None:
        """Lets each block's results go, as a caller does: memory that is held is memory to be mapped anew."""
        if update:
            sweep(one, weight, factor, mask, bits)
            return
        for block in blocks:
            one(*block, **settings(bits))

    def same() -> None:
        for actual, expected in zip(_tensors(run(ops.obs_sweep)), _tensors(run(column_loop)), strict=True):
            assert torch.equal(actual, expected), "weights and codes must equal the column loop's bit for bit"

    nbytes = weight.nbytes + mask.nbytes + factor.nbytes
    contenders = [
        Contender(COLUMN_LOOP, [lambda: timed(column_loop)], nbytes, f"blocks of {BLOCK} columns"),
        Contender(
            OBS_SWEEP, [lambda: timed(ops.obs_sweep)], nbytes, f"blocks of {BLOCK} columns, bit for bit the same", same
        ),
    ]
    work = "blocks and update" if update else "blocks alone"
    return Case(OP, {"shape": name, "n": n, "k": k, "bits": bits, "work": work}, contenders)


def _tensors(result: Sequence[Any]) -> list[torch.Tensor]:
    return [t for item in result for t in ((item,) if isinstance(item, torch.Tensor) else item)]
