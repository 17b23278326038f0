"""These tests run under Triton's interpreter, which must be chosen before triton is imported: `test_interpreter.py`
runs them in a process of its own. Anywhere else they are not collected.

The interpreter keeps bfloat16 as integers: it truncates where a GPU rounds to nearest even, and it adds, subtracts and
multiplies (`tl.dot` too) the integers themselves. `_repair_bfloat16` gives it the arithmetic of a GPU.
"""

import operator
import os

import numpy as np

collect_ignore_glob = ["test_*.py"]


def _widen(data: np.ndarray) -> np.ndarray:
    return (data.astype(np.uint32) << 16).view(np.float32)


def _round(data: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(data, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(data), np.uint16(0x7FC0), rounded)


def _repair_bfloat16() -> None:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def is_bfloat16(handle) -> bool:
        return handle.dtype.scalar == tl.bfloat16

    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast_impl(self, src, dst_type):
        if is_bfloat16(src):
            wide = TensorHandle(_widen(src.data), tl.float32)
            return wide if dst_type.scalar == tl.float32 else cast_impl(self, wide, dst_type)
        if dst_type.scalar == tl.bfloat16:
            return TensorHandle(_round(src.data), tl.bfloat16)
        return cast(self, src, dst_type)

    def create_dot(self, a, b, d, *options):
        if is_bfloat16(a):
            a, b = (TensorHandle(_widen(side.data), tl.float32) for side in (a, b))
        return dot(self, a, b, d, *options)

    def arithmetic(name, op):
        plain = getattr(InterpreterBuilder, name)

        def run(self, lhs, rhs):
            if is_bfloat16(lhs):
                return TensorHandle(_round(op(_widen(lhs.data), _widen(rhs.data))), tl.bfloat16)
            return plain(self, lhs, rhs)

        setattr(InterpreterBuilder, name, run)

    InterpreterBuilder.cast_impl = cast_impl
    InterpreterBuilder.create_fp_to_fp = lambda self, src, dst_type, rounding: cast_impl(self, src, dst_type)
    InterpreterBuilder.create_dot = create_dot
    for name, op in (("create_fadd", operator.add), ("create_fsub", operator.sub), ("create_fmul", operator.mul)):
        arithmetic(name, op)


if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = []
    _repair_bfloat16()
