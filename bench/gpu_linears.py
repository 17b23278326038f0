"""Packed linears and their peers on a GPU, as contenders; the counterpart of `linears` and `peers`."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from prism_kernels import dispatch, triton
from prism_kernels.nn import PackedLinear, Sparse24Linear

from . import verify
from .harness import Case, Contender, copies_for
from .peers import Linear
from .problems import GROUP_SIZE, Request, random_mask, random_weight
from .targets import BF16, CUSPARSE, CUSPARSELT, ON_TRITON, TINYGEMM

_SEED = 20260101
#: From more tokens on, decoding and a dense product serve.
_MOST_TOKENS_ON_TRITON = 256

Maker = Callable[[torch.Tensor, torch.Tensor], list[Linear]]


def gpu_backend(op: str) -> str:
    """What serves `op` on this machine's GPU."""
    return next(row.backend for row in dispatch.explain(op) if row.device == "cuda")


def dense_bf16(weight: torch.Tensor) -> Linear:
    copies = [weight.cuda() for _ in range(copies_for(weight.nbytes, "cuda"))]
    return Linear(BF16, copies, lambda w, x: F.linear(x, w), weight.nbytes)


def tinygemm(weight: torch.Tensor) -> Linear:
    """torch's own int4 product: round-to-nearest groups of 64, w = (q - 8) * s + z, 4.5 bits per weight."""
    n, k = weight.shape
    groups = weight.cuda().float().view(n, k // GROUP_SIZE, GROUP_SIZE)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp_min(1e-12)
    codes = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.uint8).view(n, k)
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
    grid = torch.stack([scale.T, (low + 8 * scale).T], -1).bfloat16().contiguous()
    nbytes = n * k // 2 + grid.nbytes
    pack, mm = torch.ops.aten._convert_weight_to_int4pack, torch.ops.aten._weight_int4pack_mm
    copies = [(pack(pairs, 8), grid.clone()) for _ in range(copies_for(nbytes, "cuda"))]
    return Linear(TINYGEMM, copies, lambda c, x: mm(x, c[0], GROUP_SIZE, c[1]), nbytes, "bf16 x, g = 64", bound=0.15)


def cusparselt(weight: torch.Tensor) -> Linear | None:
    """cuSPARSELt over the same 2:4 weight, its algorithm searched for every number of tokens outside the timing; rows
    of x are padded to a multiple of 8 inside. None where this torch carries no cuSPARSELt."""
    if not torch.backends.cusparselt.is_available():
        return None
    n, k = weight.shape
    nbytes = n * k * 9 // 8
    copies = [torch._cslt_compress(weight.cuda()) for _ in range(copies_for(nbytes, "cuda"))]
    searched: dict[int, int] = {}  # the check of a contender calls before its calls are captured

    def run(compressed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        m = x.shape[0]
        columns = F.pad(x, (0, 0, 0, -m % 8)).t()
        if m not in searched:
            searched[m] = int(torch._cslt_sparse_mm_search(compressed, columns, transpose_result=True))
        return torch._cslt_sparse_mm(compressed, columns, transpose_result=True, alg_id=searched[m])[:m]

    return Linear(CUSPARSELT, copies, run, nbytes, "9.00 bits/weight, algorithm search")


def cusparse(weight: torch.Tensor) -> Linear:
    """torch's CSR, cuSPARSE inside, with int32 indices and the values of `weight`."""

    def sparse() -> torch.Tensor:
        csr = weight.cuda().to_sparse_csr()
        indices = csr.crow_indices().int(), csr.col_indices().int()
        return torch.sparse_csr_tensor(*indices, csr.values(), csr.shape, check_invariants=False)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta.*")
        first = sparse()
        nbytes = first.values().numel() * (weight.element_size() + 4) + 4 * (len(weight) + 1)
        copies = [first, *(sparse() for _ in range(copies_for(nbytes, "cuda") - 1))]
    return Linear(CUSPARSE, copies, lambda csr, x: (csr @ x.T).T, nbytes, "bf16 values, int32 columns")


def packed(
    name: str, module_class: type[PackedLinear], weight: torch.Tensor, mask: torch.Tensor | None = None,
    *, bound: float = 0.02, run: Callable[[PackedLinear, torch.Tensor], torch.Tensor] = lambda m, x: m(x),
    note: str = "", by_rows: Callable[[int], dict[str, Any]] = lambda rows: {}, **options: Any,
) -> Linear:  # fmt: skip
    """`from_linear(weight, mask, **options)`, packed on the CPU and copied to the GPU, checked on its first rows; `run`
    calls another backend than the one that is dispatched, `by_rows(n)` gives options that depend on the rows."""

    def made(rows: int) -> PackedLinear:
        kept = None if mask is None else mask[:rows].contiguous()
        return module_class.from_linear(verify.linear_of(weight[:rows].clone()), kept, **options, **by_rows(rows))

    module, small = made(len(weight)), made(verify.SMALL_ROWS).cuda()
    nbytes = module.resident_nbytes
    copies = [made_copy.cuda() for made_copy in _clones(module, copies_for(nbytes, "cuda"))]

    def check(x: torch.Tensor) -> None:
        expected = verify.reference(small, x)
        verify.assert_matches(run(small, x), expected, x.shape[1])

    note = note or f"{module.bits_per_weight:.2f} bits/weight"
    return Linear(name, copies, run, nbytes, note, bound=bound, check=check)


def on_triton(module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    """The fused op of `module` by its Triton kernel, whatever serves it."""
    with dispatch.on_triton():
        return module.fused(x)


def beside_on_triton(op: str, contender: Contender) -> list[Contender]:
    """The same calls of `op` on Triton, where Triton is installed and has the kernel."""
    if not (triton.is_installed() and op in triton.OPS):
        return []

    def within(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with dispatch.on_triton():
                return call()

        return run

    calls, check = [within(call) for call in contender.calls], contender.check and within(contender.check)
    name = contender.name + ON_TRITON
    return [dataclasses.replace(contender, name=name, calls=calls, check=check, served_by="Triton")]


def both_backends(
    name: str, module_class: type[PackedLinear], weight: torch.Tensor, mask: torch.Tensor | None = None, **options: Any
) -> list[Linear]:
    """`packed` as it is served, and beside it by Triton, where Triton is installed and has the kernel."""
    linears = [packed(name, module_class, weight, mask, **options)]
    if triton.is_installed() and module_class._op() in triton.OPS:
        beside = packed(name + ON_TRITON, module_class, weight, mask, run=on_triton, **options)
        linears.append(dataclasses.replace(beside, most_tokens=_MOST_TOKENS_ON_TRITON))
    return linears


def _clones(module: PackedLinear, count: int) -> Iterator[PackedLinear]:
    return (copy.deepcopy(module) for _ in range(count))


def linear_cases(
    op: str,
    make: Maker,
    request: Request,
    *,
    mask_of: Callable[..., torch.Tensor] | None = random_mask,
    weight_of: Callable[..., torch.Tensor] = random_weight,
) -> Iterator[Case]:
    """As `linears.linear_cases`: weights are made on the CPU, from the same seed, and multiplied on the GPU."""
    for shape_name, (n, k) in request.shapes.items():
        generator = torch.Generator().manual_seed(_SEED)
        weight = weight_of(n, k, generator)
        mask = torch.ones(n, k, dtype=torch.bool) if mask_of is None else mask_of(n, k, generator)
        weight *= mask
        linears = [dense_bf16(weight), *make(weight, mask)]
        on_device = weight.cuda()
        for m in request.tokens:
            x = torch.randn(m, k, generator=generator).bfloat16().cuda()
            contenders = [_contender(linear, op, x, on_device) for linear in linears if m <= (linear.most_tokens or m)]
            yield Case(op, {"shape": shape_name, "n": n, "k": k, "m": m}, contenders, 2.0 * m * n * k, "cuda")


def _contender(linear: Linear, op: str, x: torch.Tensor, weight: torch.Tensor) -> Contender:
    calls = [partial(linear.run, item, x) for item in linear.copies]

    def check() -> None:
        if linear.check is not None:
            linear.check(x)
        verify.assert_close_to_dense(calls[0](), x, weight, linear.bound)

    served_by = "torch"
    module = linear.copies[0]
    if isinstance(module, PackedLinear):
        dense = verify.takes_dense_path(module, x)
        served_by = f"{gpu_backend(module.op_for(x))}, {'decode + GEMM' if dense else 'fused'}"
        if isinstance(module, Sparse24Linear) and module.takes_cusparselt(x):
            served_by = "cuSPARSELt"
            for copy in linear.copies:
                copy.prepare_cusparselt()  # captured calls do not
        if linear.run is on_triton:
            served_by = "Triton, fused"
    return Contender(linear.name, calls, linear.nbytes, linear.note, check, served_by)
