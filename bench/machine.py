"""The machine a benchmark ran on, and its measured roofs: read bandwidth and dense GEMM."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from prism_kernels import __version__, dispatch, huge_pages

#: Larger than any last-level cache here by a factor of eight.
STREAM_BYTES = 2**28
_VARIABLES = ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "PRISM_CPU_ISA", "PRISM_HUGE_PAGES")


def cpu_name() -> str:
    """Model and family of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            fields = dict(line.split(":", 1) for line in lines.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    values = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{values.get('model name', platform.processor())} (family {values.get('cpu family', '?')})"


def device_folder() -> str:
    """The folder name of this device's results: amd-epyc-family-26-2-cores."""
    words = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    return f"{words}-{os.cpu_count()}-cores"


def load_average() -> float:
    """Runnable processes over the last minute; above the idle 0 the times below are those of a shared machine."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else float("nan")


def competing_cores(interval: float = 0.5) -> float:
    """How many cores other processes and other guests of the host kept busy while this one slept; nan off Linux.

    The load average cannot tell: after a minute of timing it counts the benchmark's own threads.
    """
    if not os.path.exists("/proc/stat"):
        return float("nan")
    ticks, own = _busy_ticks(), time.process_time()
    time.sleep(interval)
    busy = (_busy_ticks() - ticks) / os.sysconf("SC_CLK_TCK") - (time.process_time() - own)
    return round(max(0.0, busy / interval), 2)


def _busy_ticks() -> int:
    with open("/proc/stat", encoding="utf-8") as lines:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, lines.readline().split()[1:9])
    return user + nice + system + irq + softirq + steal


def environment() -> dict[str, Any]:
    """What every result file states. The load average and the competing cores are those of the start."""
    return {
        "prism_kernels": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": output_of("git", "rev-parse", "HEAD"),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": dispatch.cpu_isa(),
        "load_average": load_average(),
        "competing_cores": competing_cores(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "stream_gbps": round(stream_bandwidth(), 1),
        "bf16_gflops": round(gemm_peak(torch.bfloat16)),
        "fp32_gflops": round(gemm_peak(torch.float32)),
    }


def output_of(*command: str) -> str:
    """What a command prints, or why it could not be asked."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"


def stream_bandwidth() -> float:
    """GB/s that all threads together read from memory, in pages as those of packed weights: the best of three
    reductions over 256 MiB, nine times each.

    Several, because a reduction that a library left scalar or single-threaded would lower the roof and flatter whatever
    is measured against it.
    """
    data = torch.ones(STREAM_BYTES // 4)
    huge_pages.collapse([data])
    words = data.view(torch.int64)
    readers: list[Callable[[], Any]] = [data.sum, data.amax, words.amax]
    best = min(seconds(reader) for _ in range(9) for reader in readers)
    return STREAM_BYTES / best / 1e9


def gemm_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of `F.linear` on a square that fits the caches: the compute roof that dense code reaches here."""
    size = 1024
    x, weight = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = min(seconds(lambda: F.linear(x, weight)) for _ in range(12))
    return 2 * size**3 / best / 1e9


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
