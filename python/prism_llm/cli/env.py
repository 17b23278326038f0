"""`prism env`: the facts that a bug report needs."""

import os
import platform
from importlib import metadata
from typing import Any

import typer

from .models import JsonOption
from .output import print_json, stdout

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "datasets", "matplotlib", "triton")
VARIABLES = {
    "PRISM_LOG_LEVEL": "debug, info, warning or error; debug shows tracebacks",
    "PRISM_CPU_ISA": "instruction set of the CPU kernels: generic, avx2, avx512, avx512_bf16",
    "PRISM_HUGE_PAGES": "0 leaves packed weights in the memory pages that the allocator gave",
    "PRISM_BUILD_CPU": "0 installs without native parts (at build time)",
    "PRISM_BUILD_CUDA": "0 forbids, 1 requires the CUDA kernels (at build time)",
    "PRISM_DEBUG": "1 builds with debug information (at build time)",
}
SHARED_VARIABLES = ("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "NO_COLOR")


def facts() -> dict[str, Any]:
    """Versions, kernels, machine and environment variables; no secret among them."""
    from dataclasses import asdict

    from prism_kernels import dispatch
    from prism_kernels.__main__ import environment

    return {
        **environment(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: os.environ.get(name) for name in (*VARIABLES, *SHARED_VARIABLES)},
        "ops": [asdict(row) for row in dispatch.explain()],
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def env(as_json: JsonOption = False) -> None:
    """Versions, what serves each kernel, and the PRISM_* environment variables."""
    from rich.table import Table

    found = facts()
    if as_json:
        print_json(found)
        return
    console = stdout()
    for key, value in found.items():
        if key not in ("ops", "variables", "packages"):
            console.print(f"{key:>15}: {value}", markup=False)
    for name, version in found["packages"].items():
        console.print(f"{name:>15}: {version or 'not installed'}", markup=False)
    variables = Table("variable", "value", "meaning")
    for name, value in found["variables"].items():
        variables.add_row(name, "unset" if value is None else value, VARIABLES.get(name, ""))
    console.print(variables)
    ops = Table("op", "device", "served by", "why")
    for row in found["ops"]:
        ops.add_row(row["op"], row["device"], row["backend"], row["reason"])
    console.print(ops)


def register(app: typer.Typer) -> None:
    app.command("env")(env)
