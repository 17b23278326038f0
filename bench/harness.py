"""Timing that does not flatter: contenders interleaved in one run, weights rotated past the last-level cache, medians.

A benchmark file gives cases (contenders, bytes); this module does the rest. On a shared machine absolute times move, so
every row carries the ratio to the baseline of the same run, and the spread.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from prism_kernels import __version__, dispatch

#: Copies of a weight are rotated until their dense bytes exceed this: four times a 32 MiB last-level cache.
ROTATION_BYTES = 128 * 2**20


@dataclass
class Contender:
    """One implementation: `calls[i]` runs it on copy i of its weight."""

    name: str
    calls: Sequence[Callable[[], Any]]
    nbytes: int  # weight bytes read by one call
    note: str = ""  # other numerics, other group size, ...


@dataclass
class Case:
    """Contenders that compute the same thing; the first is the baseline of the ratios."""

    op: str
    problem: dict[str, Any]
    contenders: list[Contender]


@dataclass
class Row:
    op: str
    problem: dict[str, Any]
    contender: str
    median_ms: float
    spread_ms: float  # interquartile range
    repeats: int
    ratio: float  # baseline median / this median
    gigabytes_per_second: float
    served_by: str
    note: str = ""


@dataclass
class Results:
    environment: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def copies_for(dense_bytes: int) -> int:
    return max(2, -(-ROTATION_BYTES // max(dense_bytes, 1)))


def environment() -> dict[str, Any]:
    return {
        "prism_kernels": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": dispatch.cpu_isa(),
        "stream_gigabytes_per_second": round(stream_bandwidth(), 1),
        "unix_time": int(time.time()),
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            fields = dict(line.split(":", 1) for line in lines.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor()
    values = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{values.get('model name', platform.processor())} (family {values.get('cpu family', '?')})"


def stream_bandwidth() -> float:
    """GB/s of a plain read with all threads: the sum over 256 MiB, best of five."""
    data = torch.ones(2**26, dtype=torch.float32)
    best = min(_seconds(lambda: data.sum()) for _ in range(5))
    return data.numel() * 4 / best / 1e9


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(case: Case, *, repeats: int = 30, budget_s: float = 20.0) -> list[Row]:
    """Times all contenders of a case in turns, `repeats` rounds or as many (at least 5) as the budget allows."""
    times: dict[str, list[float]] = {c.name: [] for c in case.contenders}
    served: dict[str, str] = {}
    for contender in case.contenders:
        before = dispatch.last_kernel()
        contender.calls[0]()
        after = dispatch.last_kernel()
        served[contender.name] = after if after != before or contender.name.startswith("prism") else "torch"
    gc.collect()
    begin = time.perf_counter()
    for round_idx in range(repeats):
        for contender in case.contenders:
            times[contender.name].append(_seconds(contender.calls[round_idx % len(contender.calls)]))
        if round_idx >= 4 and time.perf_counter() - begin > budget_s:
            break
    baseline = statistics.median(times[case.contenders[0].name])
    return [_row(case, c, times[c.name], baseline, served[c.name]) for c in case.contenders]


def _row(case: Case, contender: Contender, seconds: list[float], baseline: float, served_by: str) -> Row:
    median = statistics.median(seconds)
    quartiles = statistics.quantiles(seconds, n=4)
    return Row(
        op=case.op,
        problem=case.problem,
        contender=contender.name,
        median_ms=median * 1e3,
        spread_ms=(quartiles[2] - quartiles[0]) * 1e3,
        repeats=len(seconds),
        ratio=baseline / median,
        gigabytes_per_second=contender.nbytes / median / 1e9,
        served_by=served_by,
        note=contender.note,
    )


def run(cases: Iterator[Case], *, repeats: int, budget_s: float, report: Callable[[Row], None]) -> list[Row]:
    rows = []
    for case in cases:
        for row in measure(case, repeats=repeats, budget_s=budget_s):
            report(row)
            rows.append(row)
    return rows
