"""CSR at 50 %, 70 % and 95 % sparsity against dense bf16 and the CSR of torch (MKL) and scipy.

`CsrLinear` holds dense-enough weights in tiles of 16 x 16, which are smaller; "as stored" is the op on the CSR tensors.
"""

from functools import partial

import torch

from prism_kernels import ops
from prism_kernels.formats import CsrWeight
from prism_kernels.nn import CsrLinear
from prism_kernels.testing import assert_matches

from . import gpu_linears, peers
from .harness import copies_for
from .linears import linear_cases, packed
from .peers import Linear
from .problems import Request, random_mask
from .targets import CSR, CSR_70, CSR_90
from .verify import SMALL_ROWS

OP = "csr_linear"
SPARSITIES = {CSR: 0.5, CSR_70: 0.7, "csr 95 %": 0.95}
GPU_SPARSITIES = {CSR: 0.5, CSR_70: 0.7, CSR_90: 0.9}


def as_stored(name: str, weight: torch.Tensor, mask: torch.Tensor) -> Linear:
    stored = CsrWeight.pack(weight, mask)
    small = CsrWeight.pack(weight[:SMALL_ROWS], mask[:SMALL_ROWS])

    def check(x: torch.Tensor) -> None:
        exact = x.double() @ small.to_dense(torch.float32).double().T
        assert_matches(ops.csr_linear(x, *small.tensors().values()), exact, x.shape[1])

    copies = [tuple(t.clone() for t in stored.tensors().values()) for _ in range(copies_for(stored.nbytes))]
    return Linear(
        f"{name}, as stored", copies, lambda c, x: ops.csr_linear(x, *c), stored.nbytes,
        f"{stored.bits_per_weight:.2f} bits/weight", check=check,
    )  # fmt: skip


def cases(request: Request):
    for name, sparsity in SPARSITIES.items():

        def make(weight, mask, name=name):
            return [
                packed(name, CsrLinear, weight, mask),
                as_stored(name, weight, mask),
                peers.torch_csr(weight),
                peers.scipy_csr(weight),
            ]

        for case in linear_cases(OP, make, request, mask_of=partial(random_mask, sparsity=sparsity)):
            case.problem["sparsity"] = sparsity
            yield case


def as_stored_on_gpu(name: str, weight: torch.Tensor, mask: torch.Tensor) -> Linear:
    stored = CsrWeight.pack(weight, mask)
    copies = [tuple(t.cuda() for t in stored.tensors().values()) for _ in range(copies_for(stored.nbytes, "cuda"))]
    return Linear(
        f"{name}, as stored", copies, lambda c, x: ops.csr_linear(x, *c), stored.nbytes,
        f"{stored.bits_per_weight:.2f} bits/weight",
    )  # fmt: skip


def gpu_cases(request: Request):
    """One token, and 16, where `csr_linear` makes tiles for tensor cores. The module holds these densities in 16 x 16
    tiles; "as stored" is the op on CSR."""
    for name, sparsity in GPU_SPARSITIES.items():

        def make(weight, mask, name=name):
            return [
                gpu_linears.packed(name, CsrLinear, weight, mask),
                as_stored_on_gpu(name, weight, mask),
                gpu_linears.cusparse(weight),
            ]

        few = Request(request.shapes, tuple(m for m in request.tokens if m in (1, 16)), request.quick)
        mask_of = partial(random_mask, sparsity=sparsity)
        for case in gpu_linears.linear_cases(OP, make, few, mask_of=mask_of):
            case.problem["sparsity"] = sparsity
            yield case
