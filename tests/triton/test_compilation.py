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
    fast: tuple[int, ...] = ()  # architectures in `make test`


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


def bitmap(n, k, columns):
    return empty(-(-n // 16), -(-k // columns), 2 * columns, dtype=torch.uint8)


def bitmap_values(m, dtype=torch.bfloat16, n=14336, k=4096):
    offsets = empty(n // 16 + 1, dtype=torch.int64)
    weight = bitmap(n, k, 2), empty(n * k // 2, dtype=torch.bfloat16), offsets
    return lambda op: op(empty(m, k, dtype=dtype), *weight, None, n)


def bitmap_codes(n, k, bits, group_size):
    offsets = empty(n // 16 + 1, dtype=torch.int64)
    return (
        bitmap(n, k, 4),
        empty(n * k * bits // 16, dtype=torch.uint8),
        offsets,
        *dual_shift(n, k, bits, group_size)[1:],
    )


def bitmap_quantized(m, bits, dtype=torch.bfloat16, n=14336, k=4096, group_size=64):
    weight = bitmap_codes(n, k, bits, group_size)
    return lambda op: op(empty(m, k, dtype=dtype), *weight, None, n, bits, group_size, "uniform", None)


def sparse_rows_weight(n=14336, k=4096):
    return (
        empty(n * k // 2, dtype=torch.bfloat16),
        empty(n * k // 2, dtype=torch.int16),
        empty(n + 1, dtype=torch.int32),
    )


def sparse_rows(m, n=14336, k=4096):
    return lambda op: op(empty(m, k, dtype=torch.bfloat16), *sparse_rows_weight(n, k), None)


def tiles_weight(n=14336, k=4096):
    return (
        empty(n // 16, k // 16, dtype=torch.uint8),
        empty(n * k // 512, 32, dtype=torch.uint8),
        empty(n * k // 2, dtype=torch.bfloat16),
        empty(n // 16 + 1, 2, dtype=torch.int64),
    )


def tiles(n=14336, k=4096):
    return lambda op: op(*tiles_weight(n, k), n, k)


def tiled(m, dtype=torch.bfloat16, n=14336, k=4096):
    return lambda op: op(empty(m, k, dtype=dtype), *tiles_weight(n, k), None, n)


SCORES = empty(4096, 4096, dtype=torch.float32)
CASES = [
    product("m=1 int4", linear(1, 4), 128, 32 << 10, fast=(80, 90, 100)),
    product("m=64 int4", linear(64, 4), 200, 64 << 10),
    product("m=16 int3 fp16", linear(16, 3, torch.float16), 168, 32 << 10, fast=(90,)),
    product("m=4 int8", linear(4, 8), 168, 48 << 10),
    product("m=4 int2 g=32", linear(4, 2, group_size=32), 128, 32 << 10, patterns=()),
    product("m=1 nf4", linear(1, 4, codebook="nf4"), 168, 32 << 10),
    product("m=8 int4 a8", linear(8, 4, activation_bits=8), 128, 32 << 10),
    Case("dual_shift_linear", "m=2 int4 fp32", linear(2, 4, torch.float32), "_linear_kernel", 168, 48 << 10),
    Case("dual_shift_dequantize", "int4", dequantize(4), "_dequantize_kernel", 96, 16 << 10, patterns=WIDE, fast=(90,)),
    Case("dual_shift_dequantize", "int6 fp32", dequantize(6, torch.float32), "_dequantize_kernel", 128, 32 << 10),
    Case("dual_shift_quantize", "int4", quantize(4), "_quantize_kernel", 128, 16 << 10,
         patterns=(WIDE_LOADS, r"div\.rn\.f32"), fast=(90,)),
    Case("dual_shift_quantize", "nf4", quantize(4, "nf4"), "_quantize_kernel", 128, 16 << 10, patterns=()),
    Case("obs_sweep", "2:4 int4", sweep(4, 4), "_sweep_kernel", 168, 16 << 10, fast=(90,)),
    Case("obs_sweep", "plain", sweep(), "_sweep_kernel", 128, 16 << 10),
    Case("sinkhorn", "prism", factors("prism"), "spreads_kernel", 128, 32 << 10, fast=(90,)),
    Case("sinkhorn", "sinq strips", factors("sinq", 64, 4096, 64), "spreads_kernel", 128, 32 << 10),
    Case("sinkhorn", "rms bf16", factors("rms", dtype=torch.bfloat16), "squares_kernel", 128, 32 << 10, patterns=()),
    Case("bitmap_linear", "m=1", bitmap_values(1), "_bitmap_linear_kernel", 168, 48 << 10, tensor_cores=True,
         fast=(90,)),
    Case("bitmap_linear", "m=16 fp32", bitmap_values(16, torch.float32), "_bitmap_linear_kernel", 168, 64 << 10),
    Case("bitmap_unpack", "bf16", lambda op: op(bitmap(4096, 4096, 2), empty(2**23, dtype=torch.bfloat16),
         empty(257, dtype=torch.int64), 4096, 4096), "_bitmap_unpack_kernel", 128, 32 << 10),
    Case("bitmap_dual_shift_linear", "m=1 int4", bitmap_quantized(1, 4), "_bitmap_dual_shift_linear_kernel", 224,
         48 << 10, tensor_cores=True, patterns=(), fast=(90,)),
    Case("bitmap_dual_shift_linear", "m=16 int3", bitmap_quantized(16, 3), "_bitmap_dual_shift_linear_kernel", 224,
         48 << 10, tensor_cores=True, patterns=()),
    Case("bitmap_dual_shift_dequantize", "int4", lambda op: op(*bitmap_codes(4096, 4096, 4, 64), 4096, 4, 64, "uniform",
         torch.bfloat16), "_bitmap_dequantize_kernel", 200, 32 << 10),
    Case("csr_linear", "m=1", sparse_rows(1), "_csr_linear_kernel", 64, 1 << 10, patterns=(), fast=(90,)),
    Case("csr_linear", "m=16", sparse_rows(16), "_csr_tokens_kernel", 128, 16 << 10, patterns=(WIDE_LOADS,)),
    Case("csr_unpack", "bf16", lambda op: op(*sparse_rows_weight(), 4096), "_csr_unpack_kernel", 64, 1 << 10,
         patterns=(), fast=(90,)),
    Case("dual_shift_pack", "int4", lambda op: op(empty(4096, 4096, dtype=torch.uint8), 4), "_dual_shift_pack_kernel",
         128, 32 << 10, patterns=(), fast=(90,)),
    Case("dual_shift_pack", "int3", lambda op: op(empty(4096, 4096, dtype=torch.uint8), 3), "_dual_shift_pack_kernel",
         128, 32 << 10, patterns=()),
    Case("dual_shift_unpack", "int4", lambda op: op(dual_shift(4096, 4096, 4, 64)[0], 4096, 4096, 4),
         "_dual_shift_unpack_kernel", 96, 32 << 10, patterns=WIDE, fast=(90,)),
    Case("tiered_linear", "m=1", tiled(1), "_tiered_linear_kernel", 200, 48 << 10, tensor_cores=True, patterns=(),
         fast=(90,)),
    Case("tiered_linear", "m=16 fp32", tiled(16, torch.float32), "_tiered_linear_kernel", 200, 64 << 10, patterns=()),
    Case("tiered_unpack", "bf16", tiles(), "_tiered_unpack_kernel", 128, 32 << 10, patterns=(), fast=(90,)),
    Case("nm_mask", "2:4", lambda op: op(SCORES, 2, 4), "_nm_mask_kernel", 96, 16 << 10),
    Case("topk_mask", "rows", lambda op: op(SCORES, 2048, "row"), "_write_kernel", 112, 32 << 10, fast=(90,)),
    Case("topk_mask", "matrix", lambda op: op(SCORES, 2**23, "matrix"), "_count_kernel", 96, 32 << 10),
    Case("block_scores", "masked", lambda op: op(SCORES, SCORES.bool()), "_block_scores_kernel", 64, 8 << 10),
]  # fmt: skip


def parameters():
    for case in CASES:
        for architecture in (90, 80, 100):
            marks = () if architecture in case.fast else pytest.mark.slow
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
