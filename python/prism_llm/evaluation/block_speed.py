"""Speed of the linears of one decoder block of a real model's shape, each storage format against dense bfloat16."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_kernels import dispatch
from prism_kernels.formats import BitmapDualShiftWeight, BitmapWeight, DualShiftWeight, PackedWeight
from prism_kernels.nn import BitmapDualShiftLinear, BitmapLinear, DualShiftLinear, PackedLinear

# (n, k) of the linears of one block of Llama-3.1-8B: 218 M weights, 436 MB in bfloat16.
LLAMA_8B_BLOCK = {
    "q_proj": (4096, 4096),
    "k_proj": (1024, 4096),
    "v_proj": (1024, 4096),
    "o_proj": (4096, 4096),
    "gate_proj": (14336, 4096),
    "up_proj": (14336, 4096),
    "down_proj": (4096, 14336),
}
# Rows are independent in every format, so this many are packed and repeated: distinct memory, honest densities, and no
# minutes spent on packing random numbers.
_PACKED_ROWS = 64
# A contender whose one pass takes more than this share of the budget (no compiled kernel) is timed once.
_SLOW = 0.05


@dataclass(frozen=True)
class Contender:
    """A storage format with its settings, by the name that tables show."""

    name: str
    weight: type[PackedWeight]
    module: type[PackedLinear]
    density: float
    options: dict[str, Any]


CONTENDERS = (
    Contender("dual_shift 4-bit g64", DualShiftWeight, DualShiftLinear, 1.0, {"bits": 4, "group_size": 64}),
    Contender("bitmap 50 % bf16", BitmapWeight, BitmapLinear, 0.5, {}),
    Contender(
        "bitmap_dual_shift 50 % + 4-bit g64",
        BitmapDualShiftWeight,
        BitmapDualShiftLinear,
        0.5,
        {"bits": 4, "group_size": 64},
    ),
)
DENSE = "dense bf16"


@dataclass(frozen=True)
class ContenderSpeed:
    """Time of one pass through all linears of the block.

    Attributes:
        ms: median milliseconds. low_ms, high_ms: first and third quartile.
        ratio: median of dense time / own time, both of the same round.
        rounds: timed passes.
        nbytes: bytes of the weights. bits_per_weight: from them.
    """

    name: str
    m: int
    ms: float
    low_ms: float
    high_ms: float
    ratio: float
    rounds: int
    nbytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class BlockSpeed:
    """A table of `ContenderSpeed`, and how it was measured."""

    rows: list[ContenderSpeed]
    threads: int
    isa: str
    shapes: dict[str, tuple[int, int]]

    @property
    def protocol(self) -> str:
        dense = [row for row in self.rows if row.name == DENSE]
        rounds = ", ".join(f"m = {row.m}: {row.rounds} rounds" for row in dense)
        once = sorted({row.name for row in self.rows if row.rounds == 1})
        slow = f"; too slow for more than one pass: {', '.join(once)}" if once else ""
        return (
            f"all {len(self.shapes)} linears of one block in turn ({_weights(self.shapes) / 1e6:.0f} M weights, more "
            f"than the caches hold), bfloat16 activations, contenders interleaved in each round, medians ({rounds}), "
            f"{self.threads} threads, {self.isa}; weights random: {_PACKED_ROWS} packed rows repeated over each matrix"
            f"{slow}"
        )

    def ratio(self, name: str, m: int = 1) -> float:
        """Speed of a contender relative to dense. Raises KeyError for one that was not measured."""
        for row in self.rows:
            if (row.name, row.m) == (name, m):
                return row.ratio
        raise KeyError(f"{name} at m = {m}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"protocol": self.protocol}


@torch.inference_mode()
def block_speed(
    contenders: Sequence[Contender] = CONTENDERS,
    *,
    m: Sequence[int] = (1,),
    shapes: dict[str, tuple[int, int]] | None = None,
    rounds: int = 15,
    budget_s: float = 45.0,
    seed: int = 0,
) -> BlockSpeed:
    """Times one pass through the linears of a block for dense and each contender.

    Args:
        contenders: formats to compare with dense bfloat16.
        m: numbers of tokens.
        shapes: name -> (n, k) of the linears, by default one block of Llama-3.1-8B.
        rounds: timed rounds per m; each runs every contender once.
        budget_s: seconds, packing included, after which no further round starts (three are always run).
        seed: of the random weights; the global generator stays untouched.
    """
    shapes = LLAMA_8B_BLOCK if shapes is None else shapes
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, list[Any]] = {DENSE: [_random(n, k, generator) for n, k in shapes.values()]}
    for contender in contenders:
        layers[contender.name] = [_packed(contender, n, k, generator) for n, k in shapes.values()]
    rows = []
    for index, tokens in enumerate(m):
        inputs = {k: torch.randn(tokens, k, generator=generator).bfloat16() for _, k in shapes.values()}
        left = (budget_s - (time.perf_counter() - start)) / (len(m) - index)
        seconds = _race(layers, inputs, rounds, left)
        rows += [_row(name, tokens, seconds, layers[name], shapes) for name in layers]
    return BlockSpeed(rows, torch.get_num_threads(), dispatch.cpu_isa(), dict(shapes))


def _race(
    layers: dict[str, list[Any]], inputs: dict[int, Tensor], rounds: int, budget_s: float
) -> dict[str, list[float]]:
    """Seconds of each pass of each contender. The first pass warms up; it is the only one of a contender that alone
    would eat the budget."""
    deadline = time.perf_counter() + budget_s
    warm_up = {name: _pass_seconds(members, inputs) for name, members in layers.items()}
    racing = [name for name, seconds in warm_up.items() if name == DENSE or seconds <= _SLOW * budget_s]
    seconds: dict[str, list[float]] = {name: [] if name in racing else [warm_up[name]] for name in layers}
    for timed in range(rounds):
        if timed >= 3 and time.perf_counter() > deadline:
            break
        for name in racing:
            seconds[name].append(_pass_seconds(layers[name], inputs))
    return seconds


def _pass_seconds(members: list[Any], inputs: dict[int, Tensor]) -> float:
    begin = time.perf_counter()
    for layer in members:
        _forward(layer, inputs)
    return time.perf_counter() - begin


def _forward(layer: Tensor | nn.Module, inputs: dict[int, Tensor]) -> Tensor:
    if isinstance(layer, Tensor):
        return F.linear(inputs[layer.shape[1]], layer)
    return layer(inputs[layer.in_features])  # type: ignore[index]


def _row(
    name: str, m: int, seconds: dict[str, list[float]], members: list[Any], shapes: dict[str, tuple[int, int]]
) -> ContenderSpeed:
    own = seconds[name]
    quartiles = statistics.quantiles(own, n=4) if len(own) > 1 else [own[0]] * 3
    nbytes = sum(x.nbytes for x in members)
    return ContenderSpeed(
        name=name,
        m=m,
        ms=1e3 * statistics.median(own),
        low_ms=1e3 * quartiles[0],
        high_ms=1e3 * quartiles[2],
        ratio=statistics.median(dense / mine for dense, mine in zip(seconds[DENSE], own, strict=False)),
        rounds=len(own),
        nbytes=nbytes,
        bits_per_weight=8 * nbytes / _weights(shapes),
    )


def _weights(shapes: dict[str, tuple[int, int]]) -> int:
    return sum(n * k for n, k in shapes.values())


def _random(n: int, k: int, generator: torch.Generator) -> Tensor:
    rows = min(n, _PACKED_ROWS)
    return _repeat(torch.randn(rows, k, generator=generator).mul_(0.02).bfloat16(), n)


def _packed(contender: Contender, n: int, k: int, generator: torch.Generator) -> PackedLinear:
    rows = min(n, _PACKED_ROWS)
    slab = torch.randn(rows, k, generator=generator).mul_(0.02).bfloat16()
    mask = None
    if contender.density < 1:
        mask = torch.rand(rows, k, generator=generator) < contender.density
    kind: Any = contender.weight
    packed = kind.pack(slab, mask=mask, **contender.options)
    tensors = {name: t if name == "column_scale" else _repeat(t, n, rows) for name, t in packed.tensors().items()}
    config = packed.config() | {"shape": [n, k]}
    return contender.module(kind.from_tensors(tensors, config))


def _repeat(tensor: Tensor, n: int, rows: int | None = None) -> Tensor:
    """The rows of `tensor` (row-major, `rows` of them, perhaps of unequal length) repeated up to `n` rows."""
    rows = tensor.shape[0] if rows is None else rows
    if n % rows:
        raise ValueError(f"block_speed: n must be a multiple of {rows} or below it, got {n}")
    return tensor.repeat(n // rows, *[1] * (tensor.dim() - 1)).contiguous()
