"""The inner loop of compensated pruning and quantization, over one block of columns."""

import torch

from ..reference.obs_sweep import obs_sweep as reference
from ._check import require, require_tensor
from ._define import define


def _fake(weight, factor, mask, n_keep, m, column_scale, scale, zero, bits, group_size):
    n, b = weight.shape
    groups = -(-b // group_size) if bits else 0
    return (
        torch.empty_like(weight),
        torch.empty_like(weight),
        weight.new_empty(n, b, dtype=torch.bool),
        weight.new_empty(n, b if bits else 0, dtype=torch.uint8),
        weight.new_empty(n, groups, dtype=torch.bfloat16),
        weight.new_empty(n, groups, dtype=torch.uint8),
    )


define(
    "obs_sweep(Tensor weight, Tensor factor, Tensor? mask, int n_keep, int m, Tensor? column_scale, Tensor? scale, "
    "Tensor? zero, int bits, int group_size) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    fake=_fake,
)

BITS = (0, 2, 3, 4, 5, 6, 8)


def obs_sweep(
    weight: torch.Tensor,
    factor: torch.Tensor,
    mask: torch.Tensor | None = None,
    n_keep: int = 0,
    m: int = 0,
    column_scale: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    zero: torch.Tensor | None = None,
    bits: int = 0,
    group_size: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prunes and rounds a block of columns left to right, each column's error compensated in the columns to its right.

    The inner loop of SparseGPT (arXiv 2301.00774), rows independent of one another. At column j, with w its current
    values: pruned ones become 0, kept ones are rounded to their grid where `bits` > 0, the error is
    e = (w - result) / factor[j, j], and every column l > j becomes w_l - e * factor[j, l]. The caller applies
    `error @ factor_rows` to the columns after the block.

    Which weights stay: `mask` where given (`n_keep` and `m` are then not used); otherwise with m > 0, at every column
    j % m == 0, the `n_keep` largest of the next m by current w^2 / factor[j, j]^2, ties and a short last group as
    `nm_mask`; otherwise all.

    Rounding with bits > 0: w is divided by `column_scale`, then rounded to the grid of its (row, group of `group_size`
    columns), by the uniform rule of `dual_shift_quantize`. Grids are `scale` and `zero` where given; otherwise each is
    found when the sweep reaches its group, from the current values that are not known to be pruned at that moment.

    Args:
        weight: [n, b] float32, finite.
        factor: [b, b] float32, the diagonal block of the upper Cholesky factor of the inverse Hessian; the diagonal
            must be positive, entries below it are not read.
        mask: bool [n, b], True = kept, or None.
        n_keep: 0 <= n_keep <= m.
        m: width of an n:m group; 0 = no n:m choice.
        column_scale: bfloat16 [b], positive, or None for ones; used by rounding only.
        scale: bfloat16 [n, ceil(b / group_size)], positive, with `zero`; or None.
        zero: uint8 of the same shape, at most 2^bits - 1.
        bits: 2, 3, 4, 5, 6 or 8; 0 = no rounding.
        group_size: columns of a quantization group, >= 1 where bits > 0.

    Returns:
        (compensated float32 [n, b]: final values, pruned ones exactly 0, rounded ones exactly (q - z) * s * c;
        error float32 [n, b]; mask bool [n, b]; codes uint8 [n, b], one per byte; scale bfloat16 and zero uint8
        [n, ceil(b / group_size)]). codes, scale and zero are [n, 0] with bits = 0.

    Example:
        >>> mask = torch.tensor([[False, True]])
        >>> obs_sweep(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), mask)[0]
        tensor([[0.0000, 1.5000]])
    """
    op = "obs_sweep"
    require_tensor(weight, op, "weight", shape=(None, None), dtype=torch.float32)
    n, b = weight.shape
    require_tensor(factor, op, "factor", shape=(b, b), dtype=torch.float32, device=weight.device)
    if mask is not None:
        require_tensor(mask, op, "mask", shape=(n, b), dtype=torch.bool, device=weight.device)
    require(m >= 0, op, "m", "be at least 0", m)
    require(0 <= n_keep <= m, op, "n_keep", f"be between 0 and m={m}", n_keep)
    require(bits in BITS, op, "bits", f"be one of {', '.join(map(str, BITS))}", bits)
    require(group_size >= min(bits, 1), op, "group_size", "be at least 1 where bits > 0", group_size)
    if column_scale is not None:
        require_tensor(column_scale, op, "column_scale", shape=(b,), dtype=torch.bfloat16, device=weight.device)
    require((scale is None) == (zero is None), op, "scale", "come with zero", "only one of them")
    if scale is not None and zero is not None:
        require(bits > 0, op, "scale", "be None where bits = 0", list(scale.shape))
        grids = (n, -(-b // group_size))
        require_tensor(scale, op, "scale", shape=grids, dtype=torch.bfloat16, device=weight.device)
        require_tensor(zero, op, "zero", shape=grids, dtype=torch.uint8, device=weight.device)
    tensors = [t if t is None else t.contiguous() for t in (weight, factor, mask, column_scale, scale, zero)]
    return torch.ops.prism.obs_sweep.default(*tensors[:3], n_keep, m, *tensors[3:], bits, group_size)
