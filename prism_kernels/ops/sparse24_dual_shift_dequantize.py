"""Decoding of 4-bit codes behind a 2:4 mask from the order of sparse tensor cores."""

import torch

from ..reference.sparse24_dual_shift_dequantize import sparse24_dual_shift_dequantize as reference
from ._check import FLOAT_DTYPES, require, require_tensor
from ._define import define
from ._sparse24 import require_codes


def _fake(codes, columns, scale, zero, column_scale, n, group_size, dtype):
    return scale.new_empty(n, column_scale.shape[0], dtype=dtype)


define(
    "sparse24_dual_shift_dequantize(Tensor codes, Tensor columns, Tensor scale, Tensor zero, Tensor column_scale, "
    "int n, int group_size, ScalarType dtype) -> Tensor",
    reference=reference,
    fake=_fake,
)


def sparse24_dual_shift_dequantize(
    codes: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    n: int,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Decodes to (q - z) * scale * column_scale where a code q is stored; elsewhere exactly 0.

    Args:
        codes: int32 [P, T, 32, 2], columns: int32 [P, T, 32], of `sparse24_pack`; P = ceil(n / 16), T = ceil(k / 64).
        scale: bfloat16 [P, G, 16], zero: uint8 [P, G, 8], G = ceil(k / group_size), column_scale: bfloat16 [k], as in
            `dual_shift_dequantize` at 4 bits with the uniform codebook. A range of panels is decoded by slicing every
            tensor with P panels.
        n: rows of the weight.
        group_size: a multiple of 32.
        dtype: of the result, float32, float16 or bfloat16; products are formed in float32 and rounded once.

    Returns:
        [n, k] in `dtype`.

    Raises:
        TypeError, ValueError: another dtype, shape or device.
    """
    name = "sparse24_dual_shift_dequantize"
    require(dtype in FLOAT_DTYPES, name, "dtype", "be float32, float16 or bfloat16", dtype)
    require_tensor(column_scale, name, "column_scale", shape=(None,), dtype=torch.bfloat16)
    tensors = (codes, columns, scale, zero, column_scale)
    require_codes(name, *tensors, n, column_scale.shape[0], group_size, column_scale.device)
    overload = torch.ops.prism.sparse24_dual_shift_dequantize.default
    return overload(*(t.contiguous() for t in tensors), n, group_size, dtype)
