"""Speed of every linear of a model at its own shapes, each storage format against dense bfloat16.

Only shapes are read: weights are random, so that a model need not be compressed, or even downloaded, to be asked about.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_kernels import dispatch, ops
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    DualShiftLinear,
    PackedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
)

# Distinct copies of a weight are rotated until they exceed this, four times a 32 MiB cache, or until they are as large
# as all linears of the model together: then the caches keep in the model what they keep here.
_ROTATION_BYTES = 128 * 2**20
# Rows of random numbers; more rows repeat them. Neither packing nor speed depends on the values.
_RANDOM_ROWS = 256
_FEWEST_ROUNDS = 3
DENSE = "dense"


@dataclass(frozen=True)
class Format:
    """A storage format to time: its module, its mask ("half", "2:4" or None) and the options of `from_linear`."""

    module: type[PackedLinear]
    mask: str | None
    options: dict[str, Any]


_INT4 = {"bits": 4, "group_size": 64}
_INT4_A8 = _INT4 | {"activation_bits": 8}
FORMATS = {
    "dual_shift": Format(DualShiftLinear, None, _INT4),
    "dual_shift_a8": Format(DualShiftLinear, None, _INT4_A8),
    "bitmap": Format(BitmapLinear, "half", {}),
    "bitmap_dual_shift": Format(BitmapDualShiftLinear, "half", _INT4),
    "bitmap_dual_shift_a8": Format(BitmapDualShiftLinear, "half", _INT4_A8),
    "sparse24": Format(Sparse24Linear, "2:4", {}),
    "sparse24_dual_shift": Format(Sparse24DualShiftLinear, "2:4", _INT4),
}


@dataclass(frozen=True)
class LinearShape:
    """Linears of one shape [n, k] in a model: how many, and the last parts of their names."""

    n: int
    k: int
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class ShapeSpeed:
    """One format on one shape with m tokens; ms of one linear.

    Attributes:
        ms: median. low_ms, high_ms: quartiles. ratio: dense median / own median. rounds: timed calls.
        nbytes: of one weight.
    """

    format: str
    n: int
    k: int
    count: int
    m: int
    ms: float
    low_ms: float
    high_ms: float
    ratio: float
    rounds: int
    nbytes: int


@dataclass(frozen=True)
class PassSpeed:
    """All linears of one forward pass with m tokens, summed."""

    format: str
    m: int
    ms: float
    ratio: float
    nbytes: int


@dataclass(frozen=True)
class ModelSpeed:
    """What `model_speed` measured, and how."""

    rows: list[ShapeSpeed]
    sums: list[PassSpeed]
    threads: int
    isa: str
    rounds: int
    load_average: float

    @property
    def protocol(self) -> str:
        return (
            f"random weights of the model's shapes, bfloat16 activations, weights as cold as in the model, contenders "
            f"interleaved, medians of up to {self.rounds} rounds, {self.threads} threads, {self.isa}, load average "
            f"{self.load_average:.2f} at the start"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"protocol": self.protocol}


def linear_shapes(model: nn.Module) -> list[LinearShape]:
    """The shapes of the linears that compression would take (all but `lm_head`), largest first. Reads no weight.

    Raises:
        ValueError: the model has no such linear.
    """
    found: dict[tuple[int, int], list[str]] = {}
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and leaf != "lm_head":
            found.setdefault((module.out_features, module.in_features), []).append(leaf)
    if not found:
        raise ValueError(f"linear_shapes: model must have an nn.Linear, got {type(model).__name__} without one")
    shapes = [LinearShape(n, k, len(names), tuple(dict.fromkeys(names))) for (n, k), names in found.items()]
    return sorted(shapes, key=lambda shape: (-shape.n * shape.k, shape.n))


@torch.inference_mode()
def model_speed(
    shapes: Sequence[LinearShape],
    *,
    formats: Sequence[str] = tuple(FORMATS),
    m: Sequence[int] = (1, 4, 16),
    rounds: int = 15,
    budget_s: float = 4.0,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ModelSpeed:
    """Times each format on each shape.

    Args:
        shapes: of `linear_shapes`.
        formats: names from FORMATS.
        m: numbers of tokens.
        rounds: timed calls of each contender per shape and m.
        budget_s: seconds per shape and m after which no further round starts (three are always run).
        seed: of the random weights; the global generator stays untouched.
        on_progress: called with (done, total, what comes next).

    Raises:
        ValueError: an empty or unknown choice, or a count below 1.
        RuntimeError: a format's result is wrong; nothing is reported then.
    """
    _require(shapes, formats, m, rounds)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    generator = torch.Generator().manual_seed(seed)
    total_bytes = sum(2 * shape.n * shape.k * shape.count for shape in shapes)
    rows: list[ShapeSpeed] = []
    for index, shape in enumerate(shapes):
        if on_progress is not None:
            on_progress(index, len(shapes), f"{shape.n} x {shape.k}")
        layers = _layers(shape, formats, total_bytes, generator)
        for tokens in m:
            x = torch.randn(tokens, shape.k, generator=generator).bfloat16()
            for name, members in layers.items():
                _require_right(name, members[0], x)
            rows += _race(shape, layers, x, rounds, budget_s)
    if on_progress is not None:
        on_progress(len(shapes), len(shapes), "")
    return ModelSpeed(rows, _sums(rows), torch.get_num_threads(), dispatch.cpu_isa(), rounds, load)


def _require(shapes: Sequence[LinearShape], formats: Sequence[str], m: Sequence[int], rounds: int) -> None:
    if not shapes:
        raise ValueError("model_speed: shapes must not be empty, got []")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"model_speed: formats must be some of {', '.join(FORMATS)}, got {list(formats)}")
    if not m or min(m) < 1:
        raise ValueError(f"model_speed: m must be numbers of at least 1, got {list(m)}")
    if rounds < 1:
        raise ValueError(f"model_speed: rounds must be at least 1, got {rounds}")


def _layers(
    shape: LinearShape, formats: Sequence[str], total_bytes: int, generator: torch.Generator
) -> dict[str, list[Any]]:
    """For each contender its distinct copies."""
    rows = min(shape.n, _RANDOM_ROWS)
    slab = torch.randn(rows, shape.k, generator=generator).mul_(0.02).bfloat16()
    weight = slab.repeat(-(-shape.n // rows), 1)[: shape.n].contiguous()
    scores = torch.rand(shape.n, shape.k, generator=generator)
    masks = {None: None, "half": scores < 0.5, "2:4": ops.nm_mask(scores, 2, 4)}
    linear = nn.Linear(shape.k, shape.n, bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    layers: dict[str, list[Any]] = {DENSE: _copies(weight, weight.nbytes, weight.nbytes, total_bytes)}
    for name in formats:
        wanted = FORMATS[name]
        module = wanted.module.from_linear(linear, masks[wanted.mask], **wanted.options)
        layers[name] = _copies(module, module.nbytes, weight.nbytes, total_bytes)
    return layers


def _copies(first: Any, nbytes: int, dense_nbytes: int, total_bytes: int) -> list[Any]:
    wanted = min(_ROTATION_BYTES, total_bytes * nbytes / dense_nbytes)
    return [first, *(copy.deepcopy(first) for _ in range(max(1, round(wanted / max(nbytes, 1))) - 1))]


def _forward(layer: Tensor | nn.Module, x: Tensor) -> Tensor:
    return F.linear(x, layer) if isinstance(layer, Tensor) else layer(x)


def _require_right(name: str, layer: Tensor | PackedLinear, x: Tensor) -> None:
    """A fast wrong kernel is no result: the output against the decoded weight, within bfloat16 and 8-bit rounding."""
    if isinstance(layer, Tensor):
        return
    expected = x.float() @ layer.to_dense(torch.float32).T
    error = float((layer(x).float() - expected).norm() / expected.norm())
    if not error <= 0.03:
        raise RuntimeError(f"model_speed: {name} must equal its decoded weight, got a relative error of {error:.2e}")


def _race(
    shape: LinearShape, layers: dict[str, list[Any]], x: Tensor, rounds: int, budget_s: float
) -> list[ShapeSpeed]:
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for members in layers.values():
        _forward(members[-1], x)
    deadline = time.perf_counter() + budget_s
    for index in range(rounds):
        if index >= _FEWEST_ROUNDS and time.perf_counter() > deadline:
            break
        for name, members in layers.items():
            layer = members[index % len(members)]
            begin = time.perf_counter()
            _forward(layer, x)
            seconds[name].append(time.perf_counter() - begin)
    dense = statistics.median(seconds[DENSE])
    return [_row(shape, name, len(x), own, dense, layers[name][0].nbytes) for name, own in seconds.items()]


def _row(shape: LinearShape, name: str, m: int, own: list[float], dense: float, nbytes: int) -> ShapeSpeed:
    quartiles = statistics.quantiles(own, n=4) if len(own) > 1 else [own[0]] * 3
    median = statistics.median(own)
    milliseconds = (1e3 * median, 1e3 * quartiles[0], 1e3 * quartiles[2])
    return ShapeSpeed(name, shape.n, shape.k, shape.count, m, *milliseconds, dense / median, len(own), nbytes)


def _sums(rows: list[ShapeSpeed]) -> list[PassSpeed]:
    sums = []
    for m in dict.fromkeys(row.m for row in rows):
        total: dict[str, float] = {}
        nbytes: dict[str, int] = {}
        for row in rows:
            if row.m == m:
                total[row.format] = total.get(row.format, 0.0) + row.count * row.ms
                nbytes[row.format] = nbytes.get(row.format, 0) + row.count * row.nbytes
        sums += [PassSpeed(name, m, ms, total[DENSE] / ms, nbytes[name]) for name, ms in total.items()]
    return sums
