"""What the benchmarks of the linear ops share: random weights, the dense baseline and the peers inside torch."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from prism_kernels.formats import PackedWeight
from prism_kernels.nn import PackedLinear

from .harness import Case, Contender, copies_for
from .problems import GROUP_SIZE, QUICK_SHAPES, QUICK_TOKENS, SHAPES, SPARSITY, TOKENS

Peers = Callable[[torch.Tensor, torch.Tensor, int], list[Contender]]


def random_mask(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, k, generator=generator) >= SPARSITY


def packed_contender(name: str, module_class: type[PackedLinear], weight: PackedWeight, x: torch.Tensor, copies: int):
    def clone() -> PackedWeight:
        return type(weight).from_tensors({key: t.clone() for key, t in weight.tensors().items()}, weight.config())

    modules = [module_class(clone()) for _ in range(copies)]
    return Contender(f"prism {weight.NAME}", [lambda m=m: m(x) for m in modules], weight.nbytes)


def dense_contender(weight: torch.Tensor, x: torch.Tensor, copies: int) -> Contender:
    weights = [weight.clone() for _ in range(copies)]
    return Contender("F.linear bf16", [lambda w=w: F.linear(x, w) for w in weights], weight.numel() * 2)


def int4pack_peer(weight: torch.Tensor, x: torch.Tensor, copies: int) -> Contender:
    n, k = weight.shape
    codes = torch.randint(0, 16, (n, k), dtype=torch.int32)
    scales = torch.full((k // GROUP_SIZE, n, 2), 0.01, dtype=torch.bfloat16)
    packed = [torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1) for _ in range(copies)]
    mm = torch.ops.aten._weight_int4pack_mm_for_cpu
    nbytes = n * k // 2 + scales.numel() * 2
    return Contender("torch int4pack", [lambda p=p: mm(x, p, GROUP_SIZE, scales) for p in packed], nbytes)


def linear_dynamic_peer(weight: torch.Tensor, x: torch.Tensor, copies: int) -> Contender:
    torch.backends.quantized.engine = "x86"
    n, k = weight.shape
    quantized = torch.quantize_per_channel(weight.float(), torch.full((n,), 0.01), torch.zeros(n), 0, torch.qint8)
    packed = [torch.ops.quantized.linear_prepack(quantized, None) for _ in range(copies)]
    xf = x.float()
    calls = [lambda p=p: torch.ops.quantized.linear_dynamic(xf, p) for p in packed]
    return Contender("torch linear_dynamic", calls, n * k, note="int8 weights and activations")


def linear_cases(
    op: str,
    module_class: type[PackedLinear],
    pack: Callable[[torch.Tensor, torch.Generator], PackedWeight],
    peers: tuple[Callable[[torch.Tensor, torch.Tensor, int], Contender], ...] = (),
    *,
    quick: bool,
) -> Iterator[Case]:
    """One case per shape and number of tokens: dense bf16, the packed module, the peers."""
    generator = torch.Generator().manual_seed(0)
    for shape_name, (n, k) in (QUICK_SHAPES if quick else SHAPES).items():
        dense = torch.randn(n, k, generator=generator).mul_(0.02).to(torch.bfloat16)
        packed = pack(dense, generator)
        for m in QUICK_TOKENS if quick else TOKENS:
            x = torch.randn(m, k, generator=generator).to(torch.bfloat16)
            copies = copies_for(dense.numel() * 2)
            contenders = [dense_contender(dense, x, copies), packed_contender(op, module_class, packed, x, copies * 2)]
            contenders += [peer(dense, x, copies * 2) for peer in peers]
            yield Case(op, {"shape": shape_name, "n": n, "k": k, "m": m}, contenders)
