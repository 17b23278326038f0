"""The compiled CUDA library, read without a GPU: architectures, registers, spills, and the instructions expected."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import prism_kernels

ARCHITECTURES = {"sm_80", "sm_90", "sm_100"}
LIBRARIES = sorted(Path(prism_kernels.__file__).parent.glob("_C_cuda.*.so"))


@dataclass(frozen=True)
class Expected:
    """What is asserted of every instantiation of a kernel, on every architecture."""

    registers: int  # at most, for the blocks per multiprocessor that the kernel is written for
    instructions: tuple[str, ...] = ()  # regular expressions over SASS, each found at least once


#: Every kernel of csrc/cuda has a line: one without fails the tests.
KERNELS = {
    "NmMaskKernel": Expected(40),
    "ObsSweepKernel": Expected(96),
    "PrepareColumnsKernel": Expected(64),
    "PrepareRowsKernel": Expected(64),
    "UnitKernel": Expected(64),
    "StartKernel": Expected(64),
    "SumKernel": Expected(128, (r"LDGSTS\.E.*128",)),  # blocks of 512 threads
    "FinishColumnsKernel": Expected(96),
    "SinqStepKernel": Expected(96),
    "SquareColumnsKernel": Expected(64),
    "CentreColumnsKernel": Expected(96),
    "WriteKernel": Expected(64),
    "Sparse24PackKernel": Expected(64),
    "Sparse24UnpackKernel": Expected(64, (r"STG\.E.*128",)),
    "Sparse24DualShiftDequantizeKernel": Expected(64, (r"STG\.E.*128", r"LDG\.E.*64")),
    "Sparse24FewTokensKernel": Expected(128, (r"HMMA\.SP", r"LDG\.E.*128")),  # a block of 16 warps fits
    "Sparse24TiledKernel": Expected(255, (r"HMMA\.SP", r"LDG\.E.*128", r"LDSM.*\.4")),
    "PanelLinearFewKernel": Expected(168, (r"HMMA\.16816", r"LDG\.E.*128")),  # a block of 12 or 16 warps fits
    "PanelLinearManyKernel": Expected(255, (r"HMMA\.16816", r"LDGSTS\.E.*128", r"LDS\.128")),  # a block of 8 warps
    "AddSplitsKernel": Expected(40),
    "QuantizeActivationsKernel": Expected(40),
    "PadActivationsKernel": Expected(40),
    "DualShiftLinearPlainKernel": Expected(128),
    "DualShiftDequantizeKernel": Expected(64, (r"LDG\.E.*128", r"STG\.E.*128")),
    "DualShiftPackKernel": Expected(40),
    "DualShiftUnpackKernel": Expected(40, (r"LDG\.E.*128", r"STG\.E.*64")),
    "DualShiftQuantizeKernel": Expected(48),
    "BitmapMarkKernel": Expected(64),
    "SumPanelOffsetsKernel": Expected(64),
    "BitmapGatherKernel": Expected(64),
    "BitmapDualShiftGatherKernel": Expected(64),
    "BitmapUnpackKernel": Expected(64, (r"STG\.E.*128",)),
    "BitmapDualShiftDequantizeKernel": Expected(96, (r"STG\.E.*128",)),
    "TopkRowsKernel": Expected(64, (r"ATOMS",)),
    "TopkHistogramKernel": Expected(64, (r"ATOMS",)),
    "TopkSelectKernel": Expected(64),
    "TopkEqualKernel": Expected(64),
    "TopkMarkKernel": Expected(64),
    "TopkFillKernel": Expected(40),
    "BlockScoresKernel": Expected(40),
    "CsrArrangeKernel": Expected(48),
    "CsrLinearKernel": Expected(96, (r"LDG\.E.*128",)),
    "CsrTilesKernel": Expected(168, (r"HMMA\.16816", r"LDG\.E.*128", r"LDS\.128", r"STS\.128", r"STS\.U16", r"REDUX")),
    "CsrUnpackKernel": Expected(64, (r"STG\.E.*128",)),
    "LowRankProductKernel": Expected(192, (r"LDG\.E.*128",)),
    # Two blocks of 256 threads per multiprocessor for 32 tokens, three for fewer.
    "TieredMmaKernel": Expected(120, (r"HMMA\.16816", r"LDGSTS\.E.*128", r"LDG\.E.*128", r"LDS\.64")),
    "TieredPlainKernel": Expected(64),
    "TieredUnpackKernel": Expected(80, (r"STG\.E.*128", r"LDG\.E.*128")),
    "TokenScalesKernel": Expected(64),
    "ArrangeFragmentsKernel": Expected(64, (r"STG\.E.*128",)),
    # The largest of its shapes has one block per multiprocessor.
    "BitmapMmaKernel": Expected(255, (r"LDGSTS\.E.*128", r"LDG\.E.*128", r"HMMA\.16816", r"LDS\.128")),
    # A block of 16 warps fits.
    "BitmapDigitsKernel": Expected(128, (r"IMMA\.16832\.U8\.S8", r"LDGSTS\.E.*128", r"LDS\.128")),
    "BitmapPlainKernel": Expected(128),
}


def cuobjdump() -> str | None:
    """Triton carries one; a CUDA toolkit may."""
    spec = find_spec("triton")
    own = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump" if spec and spec.origin else Path()
    return str(own) if own.is_file() else shutil.which("cuobjdump")


pytestmark = [
    pytest.mark.skipif(not LIBRARIES, reason="the CUDA library is not built (no nvcc)"),
    pytest.mark.skipif(cuobjdump() is None, reason="no cuobjdump (pip install triton)"),
]


def dump(*flags: str) -> str:
    command = [cuobjdump(), *flags, LIBRARIES[0]]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Usage:
    architecture: str
    kernel: str
    mangled: str
    registers: int
    stack: int
    local: int


def kernel_of(mangled: str) -> str:
    """ "NmMaskKernel" of a mangled name: the length-prefixed part that ends in Kernel, whatever digits precede."""
    for match in re.finditer(r"(?=(\d+)([A-Z]\w*))", mangled):
        name = match.group(2)[: int(match.group(1))]
        if name.endswith("Kernel"):
            return name
    return mangled


@pytest.fixture(scope="module")
def usages() -> list[Usage]:
    found, architecture = [], ""
    lines = dump("-res-usage").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if match := re.match(r"arch = (\w+)", line):
            architecture = match.group(1)
        if match := re.match(r" Function (\w+):", line):
            numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", following))
            name = match.group(1)
            counts = (int(numbers[key]) for key in ("REG", "STACK", "LOCAL"))
            found.append(Usage(architecture, kernel_of(name), name, *counts))
    return found


def listings(architecture: str) -> Iterator[tuple[str, str]]:
    """(mangled name, SASS) of each kernel."""
    parts = re.split(r"\n\s*Function : (\w+)\n", dump("-sass", "-arch", architecture))
    return zip(parts[1::2], parts[2::2], strict=True)


def test_every_kernel_is_built_for_every_architecture(usages):
    kernels = {(usage.kernel, usage.architecture) for usage in usages}
    assert {kernel for kernel, _ in kernels} == set(KERNELS)
    assert kernels == {(kernel, architecture) for kernel in KERNELS for architecture in ARCHITECTURES}


def test_no_kernel_spills_or_uses_local_memory(usages):
    assert usages
    assert [usage for usage in usages if usage.stack or usage.local] == []


def test_registers_stay_within_the_budget(usages):
    over = [usage for usage in usages if usage.registers > KERNELS[usage.kernel].registers]
    assert over == [], [(usage.architecture, usage.mangled, usage.registers) for usage in over]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_expected_instructions_are_there(architecture):
    seen = 0
    for mangled, code in listings(architecture):
        for pattern in KERNELS[kernel_of(mangled)].instructions:
            assert re.search(pattern, code), f"{mangled} on {architecture} has no {pattern}"
            seen += 1
    assert seen >= sum(len(expected.instructions) for expected in KERNELS.values())
