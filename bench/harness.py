"""Timing that does not flatter: contenders interleaved in one run, weights rotated past the last-level cache, medians.

A benchmark file gives cases (contenders with their check, bytes, operations); this module does the rest. On a shared
machine absolute times move, so every row carries the ratio to the first contender of the same run, and the spread.
A contender that fails its check is refused: a fast wrong kernel is no result.
"""

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from prism_kernels import dispatch, ops

from .machine import seconds
from .targets import Verdict, verdicts

#: Copies of a weight are rotated until their bytes exceed this: four times a 32 MiB last-level cache, and on a GPU four
#: times a 60 MiB one.
ROTATION_BYTES = {"cpu": 128 * 2**20, "cuda": 240 * 2**20}
#: A contender that is slow beside the rest gets as many rounds as its share of the budget holds, at least this many.
_FEWEST = 3


@dataclass
class Contender:
    """One implementation: `calls[i]` runs it on copy i of its weight."""

    name: str
    calls: Sequence[Callable[[], Any]]
    nbytes: int  # of the format, read by one call
    note: str = ""  # other numerics, other group size, ...
    check: Callable[[], None] | None = None  # raises AssertionError where its result is wrong
    served_by: str = ""  # asked of the dispatcher where empty
    eager: bool = False  # on a GPU: synchronizes with the host, so that no graph can hold it


@dataclass
class Case:
    """Contenders that compute the same thing; the first is the baseline of the ratios."""

    op: str
    problem: dict[str, Any]
    contenders: list[Contender]
    flops: float = 0.0  # multiplications and additions of the dense problem
    isa: str = ""  # of the targets that apply: "cuda", or the active one of the CPU


@dataclass
class Row:
    """One contender's result; times in ms, nan and an `error` where it was refused."""

    op: str
    problem: dict[str, Any]
    contender: str
    note: str = ""
    error: str = ""
    median_ms: float = float("nan")
    low_ms: float = float("nan")  # first decile
    spread_ms: float = float("nan")  # interquartile range
    rounds: int = 0
    copies: int = 0
    ratio: float = float("nan")  # baseline median / this median
    nbytes: int = 0
    gbps: float = float("nan")  # GB/s of format bytes
    stream_share: float = float("nan")  # of the read bandwidth measured around the run
    gflops: float = float("nan")  # of the dense problem
    served_by: str = "torch"
    verdicts: list[Verdict] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def copies_for(nbytes: int, device: str = "cpu") -> int:
    """How many copies of a weight of so many bytes are rotated."""
    return max(2, -(-ROTATION_BYTES[device] // max(nbytes, 1)))


#: Seconds of each contender's calls: (contenders, rounds, budget in seconds) -> their times by name.
Timer = Callable[[Sequence[Contender], int, float], dict[str, list[float]]]


def measure(case: Case, *, rounds: int = 30, budget_s: float = 30.0, timer: Timer | None = None) -> list[Row]:
    """Checks, then times the contenders of a case in turns, in `rounds` rounds, each in an order of its own; one that
    needs more than its share of the budget sits rounds out, evenly. Refused contenders are not timed."""
    rows = {c.name: Row(case.op, case.problem, c.name, c.note, nbytes=c.nbytes) for c in case.contenders}
    racing = []
    for contender in case.contenders:
        error = _refusal(contender)
        rows[contender.name].error = error
        if not error:
            racing.append(contender)
    times = (timer or _race)(racing, rounds, budget_s)
    baseline = case.contenders[0].name
    for contender in racing:
        _fill(rows[contender.name], contender, times[contender.name], times.get(baseline), case.flops)
        rows[contender.name].served_by = contender.served_by or _served_by(contender)
    result = list(rows.values())
    for row in result:
        medians = {other.contender: other.median_ms for other in result}
        row.verdicts = verdicts(row.op, row.contender, row.problem, medians, case.isa or dispatch.cpu_isa())
    return result


def _refusal(contender: Contender) -> str:
    """Why this contender may not be reported, or ""."""
    if contender.check is None:
        return ""
    try:
        contender.check()
    except AssertionError as error:
        return " ".join(str(error).split()) or "its check failed"
    return ""


def _race(racing: Sequence[Contender], rounds: int, budget_s: float) -> dict[str, list[float]]:
    share = budget_s / max(len(racing), 1)
    wanted = {}
    for contender in racing:
        warm = seconds(contender.calls[0])
        warm = min(warm, seconds(contender.calls[-1])) if warm < share / _FEWEST else warm
        wanted[contender.name] = min(rounds, max(_FEWEST, int(share / warm)))
    times: dict[str, list[float]] = {c.name: [] for c in racing}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds):
            # Each after every other alike: what runs behind F.linear was seen to take up to 0.15 ms longer.
            for contender in random.Random(index).sample(racing, len(racing)):
                own = times[contender.name]
                if len(own) <= index * wanted[contender.name] // rounds:
                    own.append(seconds(contender.calls[len(own) % len(contender.calls)]))
    finally:
        if collecting:
            gc.enable()
    return times


def _fill(row: Row, contender: Contender, own: list[float], baseline: list[float] | None, flops: float) -> None:
    median = statistics.median(own)
    quartiles = statistics.quantiles(own, n=4) if len(own) > 1 else [median] * 3
    row.median_ms = median * 1e3
    row.low_ms = sorted(own)[len(own) // 10] * 1e3
    row.spread_ms = (quartiles[2] - quartiles[0]) * 1e3
    row.rounds, row.copies = len(own), len(contender.calls)
    row.ratio = statistics.median(baseline) / median if baseline else float("nan")
    row.gbps = contender.nbytes / median / 1e9
    row.gflops = flops / median / 1e9


def _served_by(contender: Contender) -> str:
    """The compiled kernel that a call of this contender ends in; only the project's own name themselves."""
    if contender.name.startswith(("F.", "torch", "scipy", "python")):
        return "torch" if not contender.name.startswith(("scipy", "python")) else contender.name.split()[0]
    scores = torch.ones(1, 4)
    for mark in (lambda: ops.nm_mask(scores, 2, 4), lambda: ops.topk_mask(scores, 2, "row")):
        mark()  # a kernel that the contender does not run, or runs under another mark
        before = dispatch.last_kernel()
        contender.calls[0]()
        if dispatch.last_kernel() != before:
            return dispatch.last_kernel()
    return "torch"


def run(
    cases: Iterable[Case], *, rounds: int, budget_s: float, report: Callable[[Row], None], timer: Timer | None = None
) -> list[Row]:
    rows = []
    for case in cases:
        for row in measure(case, rounds=rounds, budget_s=budget_s, timer=timer):
            report(row)
            rows.append(row)
    return rows
