"""The compensated sweep over all columns of a matrix, block by block, against the Python column loop; same result.

Measured twice: the blocks alone, which is the op, and with the dense update of the columns behind each block, which
both sides share and which bounds what a user sees.
"""

from collections.abc import Callable, Iterator

import torch

from prism_kernels import ops
from prism_kernels.reference.obs_sweep import obs_sweep as column_loop

from .gpu_linears import gpu_backend
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


def sweep(run: Sweep, weight: torch.Tensor, factor: torch.Tensor, mask: torch.Tensor, bits: int, update: bool):
    """Compensated weight and codes of the whole matrix [n, k]; without `update`, each block on its own."""
    settings = {"n_keep": 0, "m": 0, "column_scale": None, "scale": None, "zero": None}
    settings |= {"bits": bits, "group_size": GROUP_SIZE if bits else 0}
    weight, codes = weight.clone(), []
    for begin in range(0, weight.shape[1], BLOCK):
        block = slice(begin, begin + BLOCK)
        square, kept = factor[block, block].contiguous(), mask[:, block].contiguous()
        done, error, _, found, _, _ = run(weight[:, block].contiguous(), square, kept, **settings)
        weight[:, block] = done
        codes.append(found)
        if update:
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
            yield case


def _case(name: str, weight: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, bits: int, update: bool) -> Case:
    n, k = weight.shape

    def compiled():
        return sweep(ops.obs_sweep, weight, factor, mask, bits, update)

    def loop():
        return sweep(column_loop, weight, factor, mask, bits, update)

    def same() -> None:
        for what, actual, expected in zip(("weight", "codes"), compiled(), loop(), strict=True):
            assert torch.equal(actual, expected), f"{what} must equal the column loop's bit for bit"

    nbytes = weight.nbytes + mask.nbytes + factor.nbytes
    contenders = [
        Contender(COLUMN_LOOP, [loop], nbytes, f"blocks of {BLOCK} columns"),
        Contender(OBS_SWEEP, [compiled], nbytes, f"blocks of {BLOCK} columns, bit for bit the same", same),
    ]
    work = "blocks and update" if update else "blocks alone"
    return Case(OP, {"shape": name, "n": n, "k": k, "bits": bits, "work": work}, contenders)
