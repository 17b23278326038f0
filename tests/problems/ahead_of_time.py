"""Compiles what a launcher would launch, for GPUs that are not there, and reads the result.

Launchers run on meta tensors of real shapes with `_launch._execute` replaced, so that what is compiled has exactly the
constants, the options and the argument types of a real call.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from prism_kernels.triton import _launch

_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Step:
    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    name: str
    architecture: int
    ptx: str
    shared: int
    registers: int
    stack: int  # bytes of spilled registers and local arrays


def steps_of(call: Callable[[], object]) -> list[Step]:
    """Every kernel that `call` launches, none of them run."""
    found: list[Step] = []
    run = _launch._execute
    _launch._execute = lambda kernel, grid, arguments, options: found.append(Step(kernel, arguments, options))
    try:
        call()
    finally:
        _launch._execute = run
    return found


def compile_step(step: Step, architecture: int) -> Compiled:
    """One launch for sm_<architecture>; arguments are specialized as Triton does: 1 is a constant, 16 divides."""
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(step.kernel.arg_names):
        value = step.arguments[name]
        if isinstance(value, torch.Tensor):
            signature[name] = _POINTERS[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif step.kernel.params[index].is_constexpr or value == 1:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=step.kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=step.options)
    registers, stack = _usage(compiled.asm["cubin"])
    name = step.kernel.__name__
    return Compiled(name, architecture, compiled.asm["ptx"], compiled.metadata.shared, registers, stack)


def _usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return int(numbers["REG"]), int(numbers["STACK"]) + int(numbers["LOCAL"])
