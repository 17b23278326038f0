"""CSR at 50 % and 70 % sparsity against dense bf16 and the CSR of torch (MKL) and scipy."""

from functools import partial

from prism_kernels.nn import CsrLinear

from . import peers
from .linears import linear_cases, packed
from .problems import Request, random_mask
from .targets import CSR, CSR_70

OP = "csr_linear"


def cases(request: Request):
    for name, sparsity in ((CSR, 0.5), (CSR_70, 0.7)):

        def make(weight, mask, name=name):
            return [packed(name, CsrLinear, weight, mask), peers.torch_csr(weight), peers.scipy_csr(weight)]

        for case in linear_cases(OP, make, request, mask_of=partial(random_mask, sparsity=sparsity)):
            case.problem["sparsity"] = sparsity
            yield case
