"""Hands the native build to CMake + Ninja. Imports no torch: its headers are looked up as files, in the build
environment or, under build isolation, in the environment that pip installs into.

Environment: PRISM_BUILD_CPU=0 skips every native part; PRISM_BUILD_CUDA=0|1 forbids or requires CUDA ops (default: where
nvcc is found); PRISM_DEBUG=1 builds with -g -O1; MAX_JOBS bounds the compile jobs (default: by cores and free memory).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
GIB_PER_JOB = 1.5  # nvcc with three architectures peaks near 1 GiB, g++ with the stable-ABI headers near 0.3


def torch_include() -> Path | None:
    spec = importlib.util.find_spec("torch")
    roots = [Path(spec.origin).parent] if spec and spec.origin else []
    roots += [Path(sysconfig.get_path(name)) / "torch" for name in ("platlib", "purelib")]
    for root in roots:
        if (root / "include" / "torch" / "csrc" / "stable" / "library.h").exists():
            return root / "include"
    return None


def max_jobs() -> int:
    if os.environ.get("MAX_JOBS"):
        return int(os.environ["MAX_JOBS"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        free = 2.0 * cores
    return max(1, min(cores, int(0.7 * free / GIB_PER_JOB)))


def missing_tool() -> str | None:
    """Why no native part can be built here, or None."""
    if os.environ.get("PRISM_BUILD_CPU") == "0":
        return "PRISM_BUILD_CPU=0"
    compilers = [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    if not any(name and shutil.which(name) for name in compilers):
        return "no C++ compiler found (install g++ >= 11 or clang++ >= 14, or set CXX)"
    if not shutil.which("cmake"):
        return "no cmake found (pip install cmake)"
    return None


class CMakeBuild(build_ext):
    """Builds all modules in one CMake run; a machine that cannot gets a pure-Python install that says what it lacks."""

    def run(self) -> None:
        reason = missing_tool()
        if reason:
            self.warn(f"prism-kernels: PURE-PYTHON INSTALL, {reason}. Ops run on their torch reference.")
            return
        output = ROOT if self.inplace else Path(self.build_lib).resolve()
        self.build_cmake(output / "prism_kernels")

    def build_cmake(self, output: Path) -> None:
        import pybind11

        include = torch_include()
        if include is None:
            self.warn(
                "prism-kernels: NO TORCH FOUND, the op library _C is left out. Install torch >= 2.10, then install again."
            )
        cuda = {"0": "OFF", "1": "ON"}.get(os.environ.get("PRISM_BUILD_CUDA", ""), "AUTO")
        # One tree per interpreter and torch, so that a second build is incremental and never mixes headers.
        tree = ROOT / "build" / f"native-{sys.implementation.cache_tag}"
        output.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(tree), f"-DPRISM_OUTPUT_DIR={output}", f"-DPRISM_TORCH_INCLUDE={include or ''}",
            f"-DPRISM_CUDA={cuda}", f"-DPython3_EXECUTABLE={sys.executable}", f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DCMAKE_BUILD_TYPE={'Debug' if os.environ.get('PRISM_DEBUG') == '1' else 'Release'}",
        ]  # fmt: skip
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(tree), "--parallel", str(max_jobs())], check=True)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "prism_kernels").glob("_*.so")]


# The extension names only tell setuptools that the wheel is platform-specific; CMake decides what is compiled.
setup(ext_modules=[Extension("prism_kernels._host", sources=[])], cmdclass={"build_ext": CMakeBuild})
