"""What each kernel must reach, and against whom: the one place where these numbers stand.

A target holds on the two large shapes; where it says so, at `SMALL_SHARE` of it on the small one. Targets without an
instruction set are those of the best one of a machine with AVX512-BF16, with all threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BF16 = "F.linear bf16"
INT4PACK = "torch int4pack"
LINEAR_DYNAMIC = "torch linear_dynamic"
TORCH_CSR = "torch CSR fp32"
TINYGEMM = "torch tinygemm int4"
#: Ends the name of a contender that runs the Triton kernel, whatever serves its op.
ON_TRITON = ", on Triton"
CUSPARSELT = "torch cuSPARSELt"
CUSPARSE = "torch CSR bf16 (cuSPARSE)"
LARGE_SHAPES = ((14336, 4096), (4096, 14336))
SMALL_SHAPE = (4096, 4096)
SMALL_SHARE = 0.8
EVERY_M = (1, 4, 16, 64, 256)
EVERY_GPU_M = (1, 4, 16, 64, 256, 2048, 4096)


@dataclass(frozen=True)
class Target:
    """`contender` must be `ratios[m]` times as fast as `against`, in the same run."""

    contender: str
    against: str
    ratios: Mapping[int | None, float]  # by m; None for ops without tokens
    isa: str = "avx512_bf16"
    small_share: float = 1.0
    shapes: tuple[tuple[int, int], ...] = (*LARGE_SHAPES, SMALL_SHAPE)


@dataclass(frozen=True)
class Verdict:
    """One target of one row: what was asked, what was reached, and whether that passes."""

    against: str
    asked: float
    reached: float
    passed: bool


def _table(contender: str, *ratios: float) -> Target:
    return Target(contender, BF16, dict(zip(EVERY_M, ratios, strict=True)), small_share=SMALL_SHARE)


def _each(contender: str, against: str, ratio: float, tokens: tuple[int, ...] = EVERY_M) -> Target:
    return Target(contender, against, dict.fromkeys(tokens, ratio))


INT4, INT4_A8 = "dual_shift 4-bit", "dual_shift 4-bit, 8-bit activations"
BITMAP, SPARSE24 = "bitmap bf16", "sparse24 bf16"
JOINT, JOINT_A8 = "bitmap + 4-bit", "bitmap + 4-bit, 8-bit activations"
SPARSE24_INT4, SPARSE24_INT4_A8 = "sparse24 + 4-bit", "sparse24 + 4-bit, 8-bit activations"
CSR, TIERED, LOW_RANK = "csr 50 %", "tiered 35/45/20", "low_rank 1/8"
CSR_70, CSR_90 = "csr 70 %", "csr 90 %"
SINKHORN, OBS_SWEEP = "prism sinkhorn", "prism obs_sweep"
MATVEC_FORM, COMPILED_FORM, EAGER_LOOP = "torch mat-vec form", "torch mat-vec form, compiled", "python eager loop"
COLUMN_LOOP = "python column loop"

TARGETS = (
    #            m = 1    4    16   64   256
    _table(INT4, 6.5, 4.0, 2.0, 1.1, 1.0),
    _table(INT4_A8, 9.0, 7.0, 3.0, 1.4, 1.2),
    _table(BITMAP, 3.0, 2.5, 1.4, 1.0, 0.97),
    _table(SPARSE24, 3.0, 2.5, 1.4, 1.0, 0.97),
    _table(JOINT, 7.0, 4.0, 2.0, 1.0, 0.97),
    _table(JOINT_A8, 9.0, 6.0, 3.0, 1.3, 1.1),
    _table(SPARSE24_INT4, 7.0, 4.0, 2.0, 1.0, 0.97),
    _each(INT4, INT4PACK, 1.2),
    _each(INT4_A8, LINEAR_DYNAMIC, 1.0),
    # The joint format is 1.3 times smaller than the project's own int4 and should be faster.
    _each(JOINT, INT4, 1.0, (1,)),
    _each(CSR, TORCH_CSR, 6.0),
    _each(CSR_70, TORCH_CSR, 6.0),
    _each(CSR_70, BF16, 1.0, (1,)),
    _each(TIERED, BF16, 1.4, (1,)),
    Target(INT4, BF16, {1: 3.5}, isa="avx2"),
    Target(BITMAP, BF16, {1: 1.3}, isa="avx2"),
    *(Target(name, BF16, {256: 0.7}, isa="generic") for name in (INT4, BITMAP, JOINT, SPARSE24, SPARSE24_INT4)),
    Target(SINKHORN, MATVEC_FORM, {None: 5.0}, shapes=((4096, 14336),)),
    Target(SINKHORN, EAGER_LOOP, {None: 100.0}, shapes=((4096, 14336),)),
    Target(OBS_SWEEP, COLUMN_LOOP, {None: 20.0}, shapes=(SMALL_SHAPE,)),
    # On a GPU the small matrix has its own figures: the cost of a launch is a larger share of it.
    Target(INT4, BF16, dict(zip(EVERY_GPU_M, (2.8, 2.8, 2.6, 1.8, 0.75, 0.9, 0.94), strict=True)), "cuda",
           shapes=LARGE_SHAPES),
    Target(INT4, BF16, dict(zip(EVERY_GPU_M, (2.1, 2.1, 2.0, 1.4, 0.7, 0.85, 0.9), strict=True)), "cuda",
           shapes=(SMALL_SHAPE,)),
    Target(INT4, TINYGEMM, dict.fromkeys(EVERY_GPU_M, 1.0), "cuda"),
    Target(SPARSE24, BF16, {1: 1.55, 4: 1.55, 16: 1.5, 64: 1.4, 2048: 1.25}, "cuda", shapes=LARGE_SHAPES),
    Target(SPARSE24_INT4, BF16, {1: 3.4, 4: 3.4, 16: 3.2, 64: 2.2, 2048: 0.9}, "cuda", shapes=LARGE_SHAPES),
    Target(SPARSE24, CUSPARSELT, dict.fromkeys(EVERY_GPU_M, 1.0), "cuda", shapes=LARGE_SHAPES),
    Target(BITMAP, BF16, {1: 1.5, 4: 1.5, 16: 1.4, 64: 1.1, 2048: 0.9}, "cuda", shapes=LARGE_SHAPES),
    Target(JOINT, BF16, {1: 3.2, 4: 3.2, 16: 2.8, 64: 1.6, 2048: 0.9}, "cuda", shapes=LARGE_SHAPES),
    Target(JOINT, INT4, {1: 1.1}, "cuda", shapes=LARGE_SHAPES),
    *(Target(name, CUSPARSE, {1: 3.0}, "cuda", shapes=LARGE_SHAPES) for name in (CSR, CSR_70, CSR_90)),
    *(Target(name, BF16, {1: 1.0}, "cuda", shapes=LARGE_SHAPES) for name in (CSR_70, CSR_90)),
    Target(TIERED, BF16, {1: 1.35}, "cuda", shapes=LARGE_SHAPES),
    Target(SINKHORN, COMPILED_FORM, {None: 5.0}, "cuda", shapes=((4096, 14336),)),
    Target(SINKHORN, EAGER_LOOP, {None: 40.0}, "cuda", shapes=((4096, 14336),)),
    Target(OBS_SWEEP, COLUMN_LOOP, {None: 10.0}, "cuda", shapes=(SMALL_SHAPE,)),
)  # fmt: skip

#: Those that other benchmarks time too: their figures are of the run of their own.
OWN_BENCHMARK = {INT4: "dual_shift_linear", INT4_A8: "dual_shift_linear"}

#: The whole model (bench_model): its blocks; tokens per second and bytes of the linears, both relative to dense.
MODEL_LAYERS = 22
MODEL_SPEED = {INT4: 3.0, JOINT: 3.0}
MODEL_BYTES = {INT4: 0.29, JOINT: 0.23}
#: The 8 B model on a GPU (gpu_model).
GPU_MODEL_SPEED = {INT4: 2.3, SPARSE24_INT4: 2.3, JOINT: 2.3}


def verdicts(
    op: str, contender: str, problem: Mapping[str, Any], medians_ms: Mapping[str, float], isa: str
) -> list[Verdict]:
    """The targets that this row of a case must meet; `medians_ms` of all contenders of the case."""
    shape, m = (problem["n"], problem["k"]), problem.get("m")
    found = []
    for target in TARGETS:
        named = (target.contender, target.isa) == (contender, isa)
        if not named or m not in target.ratios or shape not in target.shapes or target.against not in medians_ms:
            continue
        asked = target.ratios[m] * (target.small_share if shape == SMALL_SHAPE else 1.0)
        reached = medians_ms[target.against] / medians_ms[contender]
        found.append(Verdict(target.against, round(asked, 3), reached, reached >= asked))  # nan never passes
    return found
