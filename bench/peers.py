"""Dense baselines and the peers inside torch and scipy, each packed from the same weight and checked against it.

Every copy owns its packed bytes: some of torch's prepacked objects keep the tensor they were made from, and copies made
from one tensor would rotate over one weight.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from prism_kernels import huge_pages

from .harness import copies_for
from .problems import GROUP_SIZE
from .targets import BF16, INT4PACK, LINEAR_DYNAMIC, TORCH_CSR


@dataclass
class Linear:
    """One implementation of x @ weight^T: `run(copies[i], x)`, with x bfloat16 [m, k] prepared outside the timing.

    `bound` is the relative error (Frobenius norm) against the dense product of the same, possibly pruned, weight.
    """

    name: str
    copies: list[Any]
    run: Callable[[Any, Any], Any]
    nbytes: int
    note: str = ""
    prepare: Callable[[torch.Tensor], Any] = lambda x: x
    bound: float = 0.02
    check: Callable[[torch.Tensor], None] | None = None  # of the same kernel on a small problem; x [m, k]
    most_tokens: int | None = None


def dense_bf16(weight: torch.Tensor) -> Linear:
    copies = [weight.clone() for _ in range(copies_for(weight.nbytes))]
    return Linear(BF16, copies, lambda w, x: F.linear(x, w), weight.nbytes)


def dense_bf16_in_huge_pages(weight: torch.Tensor) -> Linear:
    """As `dense_bf16`, its weights in pages as those of packed weights: what these are worth to dense code."""
    dense = dense_bf16(weight)
    huge_pages.collapse(dense.copies)
    dense.name, dense.note = f"{BF16}, huge pages", "weights in pages of 2 MB, as packed ones are"
    return dense


def dense_fp32(weight: torch.Tensor) -> Linear:
    nbytes = 2 * weight.nbytes
    copies = [weight.float() for _ in range(copies_for(nbytes))]
    return Linear("F.linear fp32", copies, lambda w, x: F.linear(x, w), nbytes, "fp32 x", prepare=torch.Tensor.float)


def int4pack(weight: torch.Tensor) -> Linear:
    """Round-to-nearest groups of 64: w = (q - 8) * s + z; scale and float zero in bfloat16, 4.5 bits per weight."""
    n, k = weight.shape
    groups = weight.float().view(n, k // GROUP_SIZE, GROUP_SIZE)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp_min(1e-12)
    codes = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.int32).view(n, k)
    grid = torch.stack([scale.T, (low + 8 * scale).T], -1).bfloat16().contiguous()
    nbytes = n * k // 2 + grid.nbytes
    pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    mm = torch.ops.aten._weight_int4pack_mm_for_cpu
    copies = [(pack(codes, 1), grid.clone()) for _ in range(copies_for(nbytes))]
    return Linear(INT4PACK, copies, lambda c, x: mm(x, c[0], GROUP_SIZE, c[1]), nbytes, "bf16 x, g = 64", bound=0.15)


def _int8_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (weight.float().abs().amax(1) / 127).clamp_min(1e-12)
    return (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def linear_dynamic(weight: torch.Tensor) -> Linear:
    torch.backends.quantized.engine = "x86"
    n, k = weight.shape
    codes, scale = _int8_rows(weight)

    def packed() -> Any:
        with warnings.catch_warnings():
            # The op takes only tensors of the deprecated quantized dtypes, and every way to make one warns.
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
            quantized = torch._make_per_channel_quantized_tensor(
                codes.clone(), scale.double(), torch.zeros(n, dtype=torch.long), 0
            )
        return torch.ops.quantized.linear_prepack(quantized, None)

    copies = [packed() for _ in range(copies_for(n * k))]
    run = torch.ops.quantized.linear_dynamic
    note = "int8 per row; x fp32, quantized per tensor on the fly"
    return Linear(
        LINEAR_DYNAMIC, copies, lambda p, x: run(x, p), n * k + 4 * n, note, prepare=torch.Tensor.float, bound=0.05
    )


def int8pack(weight: torch.Tensor) -> Linear:
    codes, scale = _int8_rows(weight)
    nbytes = codes.nbytes + 2 * codes.shape[0]
    copies = [(codes.clone(), scale.bfloat16()) for _ in range(copies_for(nbytes))]
    mm = torch.ops.aten._weight_int8pack_mm
    return Linear("torch int8pack", copies, lambda c, x: mm(x, *c), nbytes, "int8 per row, bf16 x", bound=0.05)


def torch_csr(weight: torch.Tensor) -> Linear:
    """MKL; int32 indices, because int64 ones are converted on every call."""

    def sparse() -> torch.Tensor:
        csr = weight.float().to_sparse_csr()
        indices = csr.crow_indices().int(), csr.col_indices().int()
        return torch.sparse_csr_tensor(*indices, csr.values(), csr.shape, check_invariants=False)

    def run(csr: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (csr @ x[0])[None] if len(x) == 1 else F.linear(x, csr)  # the mat-vec is its fastest call at m = 1

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta.*")
        first = sparse()
        nbytes = 8 * first.values().numel() + 4 * (weight.shape[0] + 1)
        copies = [first, *(sparse() for _ in range(copies_for(nbytes) - 1))]
    return Linear(TORCH_CSR, copies, run, nbytes, "fp32 values and x, int32 columns", prepare=torch.Tensor.float)


def scipy_csr(weight: torch.Tensor) -> Linear | None:
    """One thread: scipy has no other. None where scipy is not installed."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    dense = weight.float().numpy()
    first = csr_array(dense)
    nbytes = first.data.nbytes + first.indices.nbytes + first.indptr.nbytes
    copies = [first, *(first.copy() for _ in range(copies_for(nbytes) - 1))]
    note = "fp32 values and x, int32 columns, one thread"
    return Linear(
        "scipy CSR fp32", copies, lambda w, x: torch.from_numpy((w @ x).T), nbytes, note,
        prepare=lambda x: x.float().T.contiguous().numpy(), most_tokens=16,
    )  # fmt: skip
