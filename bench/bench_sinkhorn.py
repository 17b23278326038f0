"""Masked Sinkhorn factors, both variants, against the mat-vec form in torch and the eager loop it replaces.

The mat-vec form computes row and column variances as products with W and W * W, held beside each other: the honest
baseline, 40 times faster than the loop.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from prism_kernels import ops
from prism_kernels.reference.sinkhorn import sinkhorn as eager_loop

from .gpu_linears import beside_on_triton, gpu_backend
from .harness import Case, Contender, copies_for
from .problems import ITERATIONS, Request, random_mask
from .targets import COMPILED_FORM, EAGER_LOOP, MATVEC_FORM, SINKHORN

OP = "sinkhorn"
#: The loop takes half a minute a call; the other shapes are no different.
EAGER_LOOP_SHAPE = "mlp_down"
Pair = tuple[torch.Tensor, torch.Tensor]


class MatVecForm:
    """Pruned entries of `weight` are zero, so that no mask is read."""

    def __init__(self, weight: torch.Tensor, mask: torch.Tensor) -> None:
        self.weight, self.squared = weight, weight.square()
        self.rows, self.columns = mask.sum(1).float(), mask.sum(0).float()

    def row_variance(self, column: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        inverse = 1 / column
        mean = (self.weight @ inverse) / row / self.rows
        return (self.squared @ inverse.square()) / row.square() / self.rows - mean.square()

    def column_variance(self, column: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        inverse = 1 / row
        mean = (inverse @ self.weight) / column / self.columns
        return (inverse.square() @ self.squared) / column.square() / self.columns - mean.square()

    def prism(self) -> Pair:
        column, row = torch.ones_like(self.columns), torch.ones_like(self.rows)
        for _ in range(ITERATIONS):
            row = row * self.row_variance(column, row).clamp_min(1e-8).sqrt()
            column = column * self.column_variance(column, row).clamp_min(1e-8).sqrt()
        return column, row

    def sinq(self) -> Pair:
        k = len(self.columns)
        factors = best = torch.ones(k + len(self.rows), device=self.weight.device)
        counts = torch.cat([self.columns, self.rows])
        lowest, target = float("inf"), None
        for _ in range(ITERATIONS):
            column, row = factors[:k], factors[k:]
            variance = torch.cat([self.column_variance(column, row), self.row_variance(column, row)])
            spread = (variance * counts / (counts - 1)).clamp_min(0).sqrt()
            if target is None:
                target = (spread.min().clamp(1e-3, 1e3) + 1e-6).clamp(1e-3, 1e3)
            imbalance = float(spread.max() / spread.min().clamp(min=1e-12))
            if imbalance > lowest:
                break
            lowest, best = imbalance, factors
            step = (spread.clamp(1e-3, 1e3) / target).clamp(0.7, 2.0)
            factors = (factors * step).log().clamp(-0.3, 10).exp()
        return best[:k], best[k:]


def uneven_weight(n: int, k: int, mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rows and columns with spreads of their own: on even ones "sinq" would stop early and time nothing."""
    rows = (0.5 * torch.randn(n, 1, generator=generator)).exp()
    columns = (0.5 * torch.randn(1, k, generator=generator)).exp()
    return torch.randn(n, k, generator=generator).mul_(0.02).mul_(rows).mul_(columns).mul_(mask)


def agrees(call: Callable[[], Pair], expected: Pair, limit: float) -> Callable[[], None]:
    def check() -> None:
        for actual, wanted in zip(call(), expected, strict=True):
            gap = float((actual.double() / wanted.double()).log().abs().max())
            assert gap <= limit, f"factors differ by {gap:.1e} from the float64 reference, allowed is {limit:.0e}"

    return check


def cases(request: Request) -> Iterator[Case]:
    """bfloat16 weights, as they lie in a model; the mat-vec form reads float32 copies made outside the timing."""
    for name, (n, k) in request.shapes.items():
        generator = torch.Generator().manual_seed(0)
        mask = random_mask(n, k, generator)
        weight = uneven_weight(n, k, mask, generator).bfloat16()
        form = MatVecForm(weight.float(), mask)
        for variant in ("prism", "sinq"):
            yield _case(variant, name, weight, mask, form)


def gpu_cases(request: Request) -> Iterator[Case]:
    """As `cases`, on a GPU."""
    for name, (n, k) in request.shapes.items():
        generator = torch.Generator().manual_seed(0)
        mask = random_mask(n, k, generator).cuda()
        weight = uneven_weight(n, k, mask.cpu(), generator).bfloat16().cuda()
        for variant in ("prism", "sinq"):
            yield _gpu_case(variant, name, weight, mask)


def _gpu_case(variant: str, name: str, weight: torch.Tensor, mask: torch.Tensor) -> Case:
    n, k = weight.shape
    options = {"variant": variant, "iterations": ITERATIONS}
    form = MatVecForm(weight.float(), mask)
    compiled = torch.compile(getattr(form, variant))
    expected = tuple(factor[0] for factor in eager_loop(weight.double()[None], mask[None], variant, ITERATIONS))
    copies = [(weight, mask), *((weight.clone(), mask.clone()) for _ in range(copies_for(weight.nbytes, "cuda") - 1))]
    nbytes = (weight.nbytes + mask.numel() // 8) * ITERATIONS
    synchronizes = variant == "sinq"  # the mat-vec form asks on the host whether the imbalance grew
    contenders = [
        Contender(
            COMPILED_FORM, [compiled], 16 * n * k * ITERATIONS, "fp32 W and W * W", agrees(compiled, expected, 2e-3),
            eager=synchronizes,
        ),
        Contender(
            MATVEC_FORM, [getattr(form, variant)], 16 * n * k * ITERATIONS, "fp32 W and W * W", eager=synchronizes
        ),
        Contender(
            SINKHORN, [lambda c=c: ops.sinkhorn(*c, **options) for c in copies], nbytes,
            "bf16 W and a bitmap, counted once per iteration", agrees(lambda: ops.sinkhorn(weight, mask, **options),
            expected, 1e-4), gpu_backend(OP),
        ),
        Contender(
            EAGER_LOOP, [partial(eager_loop, weight.float()[None], mask[None], variant, ITERATIONS)], nbytes,
            "the reference, in float32", eager=True,
        ),
    ]  # fmt: skip
    contenders += beside_on_triton(OP, contenders[2])
    problem = {"shape": name, "n": n, "k": k, "variant": variant, "iterations": ITERATIONS}
    return Case(OP, problem, contenders, 4.0 * 2 * n * k * ITERATIONS, "cuda")


def _case(variant: str, name: str, weight: torch.Tensor, mask: torch.Tensor, form: MatVecForm) -> Case:
    n, k = weight.shape
    small, kept = weight[:131, :515].contiguous(), mask[:131, :515].contiguous()
    options = {"variant": variant, "iterations": ITERATIONS}
    expected = tuple(factor[0] for factor in eager_loop(small.double()[None], kept[None], variant, ITERATIONS))
    copies = [(weight, mask), *((weight.clone(), mask.clone()) for _ in range(copies_for(weight.nbytes) - 1))]
    small_form = MatVecForm(small.float(), kept)
    nbytes = weight.nbytes + mask.numel() // 8
    contenders = [
        Contender(
            MATVEC_FORM, [getattr(form, variant)], 16 * n * k * ITERATIONS, "fp32 W and W * W",
            agrees(getattr(small_form, variant), expected, 2e-3),
        ),
        Contender(
            SINKHORN, [lambda c=c: ops.sinkhorn(*c, **options) for c in copies], nbytes * ITERATIONS,
            "bf16 W and a bitmap, counted once per iteration",
            agrees(lambda: ops.sinkhorn(small, kept, **options), expected, 1e-4),
        ),
    ]  # fmt: skip
    if name == EAGER_LOOP_SHAPE:
        loop = partial(eager_loop, weight.float()[None], mask[None], variant, ITERATIONS)
        contenders.append(Contender(EAGER_LOOP, [loop], nbytes * ITERATIONS, "the reference, in float32"))
    problem = {"shape": name, "n": n, "k": k, "variant": variant, "iterations": ITERATIONS}
    return Case(OP, problem, contenders, flops=4.0 * 2 * n * k * ITERATIONS)
