"""Every Triton kernel is compiled for sm_80, sm_90 and sm_100 as its launcher would launch it: registers, spills,
shared memory, and the instructions that its speed needs. `make test` compiles all for sm_90 and one product for every
other."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from ahead_of_time import compile_step, steps_of
from prism_kernels import triton as kernels

META = torch.device("meta")
#: A product on tensor cores: Ampere's, Hopper's (from shared memory too), Blackwell's.
TENSOR_CORES = {80: r"mma\.sync\S*m16n8k16", 90: r"wgmma\.mma_async", 100: r"tcgen05\.mma"}
#: 16 bytes a thread, by registers or straight into shared memory.
WIDE_LOADS = r"ld\.global\S*\.v4\.b32|ld\.global\S*\.v2\.b64|cp\.async\.cg\S*[^;]*, 0x10"
WIDE_STORES = r"st\.global\S*\.v4\.b32|st\.global\S*\.v2\.b64"
WIDE = (WIDE_LOADS, WIDE_STORES)


@dataclass(frozen=True)
class Case:
    """One call of an op; limits hold for its kernel named `kernel`, and no kernel of the call may spill."""

    op: str
    id: str
    call: Callable[[Callable], object]
    kernel: str
    registers: int
    shared: int = 0  # bytes
    tensor_cores: bool = False
    patterns: tuple[str, ...] = (WIDE_LOADS,)
    everywhere: bool = False  # on every architecture in `make test`, otherwise on sm_90 alone


def empty(*shape, dtype):
    return torch.empty(*shape, dtype=dtype, device=META)


def dual_shift(n, k, bits, group_size, uniform=True):
    panels, groups = -(-n // 16), -(-k // group_size)
    zero_bytes = (8 if bits <= 4 else 16) if uniform else 0
    return (
        empty(panels, -(-k // 32), bits, 64, dtype=torch.uint8),
        empty(panels, groups, 16, dtype=torch.bfloat16),
        empty(panels, groups, zero_bytes, dtype=torch.uint8),
        empty(k, dtype=torch.bfloat16),
    )


def linear(m, bits, dtype=torch.bfloat16, codebook="uniform", activation_bits=None, group_size=64, n=14336, k=4096):
    weight = dual_shift(n, k, bits, group_size, codebook == "uniform")
    return lambda op: op(
        empty(m, k, dtype=dtype), *weight, empty(n, dtype=dtype), n, bits, group_size, codebook, activation_bits
    )


def dequantize(bits, dtype=torch.bfloat16, n=14336, k=4096):
    return lambda op: op(*dual_shift(n, k, bits, 64), n, bits, 64, "uniform", dtype)


def product(id, call, registers, shared, **options):
    return Case("dual_shift_linear", id, call, "_linear_kernel", registers, shared, tensor_cores=True, **options)


def quantize(bits, codebook="uniform", n=4096, k=4096):
    mask = empty(n, k, dtype=torch.bool)
    return lambda op: op(empty(n, k, dtype=torch.bfloat16), empty(k, dtype=torch.bfloat16), mask, bits, 64, codebook)


def sweep(m=0, bits=0, n=4096, b=128):
    column = empty(b, dtype=torch.bfloat16) if bits else None
    tensors = empty(n, b, dtype=torch.float32), empty(b, b, dtype=torch.float32)
    return lambda op: op(*tensors, None, m // 2, m, column, None, None, bits, 64)


def factors(variant, b=1, n=4096, k=14336, dtype=torch.float32):
    return lambda op: op(empty(b, n, k, dtype=dtype), empty(b, n, k, dtype=torch.bool), variant, 2)


CASES = [
    product("m=1 int4", linear(1, 4), 128, 32 << 10, everywhere=True),
    product("m=64 int4", linear(64, 4), 200, 64 << 10),
    product("m=16 int3 fp16", linear(16, 3, torch.float16), 168, 32 << 10),
    product("m=4 int8", linear(4, 8), 168, 48 << 10),
    product("m=4 int2 g=32", linear(4, 2, group_size=32), 128, 32 << 10, patterns=()),
    product("m=1 nf4", linear(1, 4, codebook="nf4"), 168, 32 << 10),
    product("m=8 int4 a8", linear(8, 4, activation_bits=8), 128, 32 << 10),
    Case("dual_shift_linear", "m=2 int4 fp32", linear(2, 4, torch.float32), "_linear_kernel", 168, 48 << 10),
    Case("dual_shift_dequantize", "int4", dequantize(4), "_dequantize_kernel", 96, 16 << 10, patterns=WIDE),
    Case("dual_shift_dequantize", "int6 fp32", dequantize(6, torch.float32), "_dequantize_kernel", 128, 32 << 10),
    Case("dual_shift_quantize", "int4", quantize(4), "_quantize_kernel", 128, 16 << 10, patterns=(r"div\.rn\.f32",)),
    Case("dual_shift_quantize", "nf4", quantize(4, "nf4"), "_quantize_kernel", 128, 16 << 10, patterns=()),
    Case("obs_sweep", "2:4 int4", sweep(4, 4), "_sweep_kernel", 168, 16 << 10),
    Case("obs_sweep", "plain", sweep(), "_sweep_kernel", 128, 16 << 10),
    Case("sinkhorn", "prism", factors("prism"), "spreads_kernel", 128, 32 << 10),
    Case("sinkhorn", "sinq strips", factors("sinq", 64, 4096, 64), "spreads_kernel", 128, 32 << 10),
    Case("sinkhorn", "rms bf16", factors("rms", dtype=torch.bfloat16), "squares_kernel", 128, 32 << 10, patterns=()),
]


def parameters():
    for case in CASES:
        for architecture in (90, 80, 100):
            marks = () if architecture == 90 or case.everywhere else pytest.mark.slow
            yield pytest.param(case, architecture, id=f"{case.op} {case.id} sm_{architecture}", marks=marks)


@pytest.mark.parametrize(("case", "architecture"), list(parameters()))
def test_compiles_within_its_limits(case, architecture):
    steps = steps_of(lambda: case.call(kernels.kernel(case.op)))
    assert case.kernel in [step.kernel.__name__ for step in steps]
    for step in steps:
        compiled = compile_step(step, architecture)
        assert compiled.stack == 0, f"{compiled.name} spills {compiled.stack} bytes"
        if compiled.name != case.kernel:
            continue
        assert compiled.registers <= case.registers, (compiled.registers, compiled.shared)
        assert compiled.shared <= case.shared, (compiled.registers, compiled.shared)
        wanted = case.patterns + ((TENSOR_CORES[architecture],) if case.tensor_cores else ())
        assert [pattern for pattern in wanted if not re.search(pattern, compiled.ptx)] == []


def test_every_op_has_a_case():
    assert {case.op for case in CASES} == set(kernels.OPS)
