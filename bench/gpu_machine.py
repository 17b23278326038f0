"""The GPU a benchmark ran on, and its measured roofs: copy bandwidth and dense GEMM."""

import platform
import time
from typing import Any

import torch

from prism_kernels import __version__

from .machine import output_of

_COPY_BYTES = 2**30
_GEMM_SIZE = 8192


def environment() -> dict[str, Any]:
    """What every result file states."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "prism_kernels": __version__,
        "commit": output_of("git", "rev-parse", "HEAD"),
        "torch": torch.__version__,
        "triton": _triton_version(),
        "python": platform.python_version(),
        "machine": torch.cuda.get_device_name(),
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "clocks_mhz": output_of("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"),
        "multiprocessors": properties.multi_processor_count,
        "threads": torch.get_num_threads(),
        "isa": f"sm_{properties.major}{properties.minor}",
        "load_average": 0.0,
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "stream_gbps": round(copy_bandwidth(), 1),
        "bf16_gflops": round(gemm_peak()),
        "fp32_gflops": round(gemm_peak(torch.float32, 4096)),
    }


def _triton_version() -> str:
    try:
        import triton
    except ImportError:
        return "not installed"
    return triton.__version__


def _best_ms(call: Any, rounds: int = 20) -> float:
    best = float("inf")
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end))
    return best


def copy_bandwidth() -> float:
    """GB/s of a large copy on the device, bytes read plus bytes written."""
    source = torch.ones(_COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _best_ms(lambda: target.copy_(source)) / 1e6


def gemm_peak(dtype: torch.dtype = torch.bfloat16, size: int = _GEMM_SIZE) -> float:
    """GFLOP/s of a large product of random values (zeros run faster)."""
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    return 2 * size**3 / _best_ms(lambda: a @ b.T) / 1e6
