"""Rounding and packing: every width decodes to what was rounded, and pruned weights to exactly 0."""

import pytest
import torch

from prism_kernels import ops
from prism_llm.pipeline import Recipe
from prism_llm.pipeline.layer import compress_weight
from prism_llm.quantization import pack_pruned, round_to_nearest

GRIDS = [(bits, "uniform") for bits in (2, 3, 4, 5, 6, 8)] + [(4, "nf4"), (3, "nf3")]


@pytest.mark.parametrize(("bits", "codebook"), GRIDS)
def test_rounding_decodes_within_half_a_step(generator, bits, codebook):
    for n, k, group_size in ((5, 37, 16), (3, 64, 64), (4, 11, 200), (2, 130, 64)):
        weight = torch.randn(n, k, generator=generator)
        mask = torch.rand(n, k, generator=generator) < 0.6
        mask[0], mask[:, 0] = False, False  # a dead row and a dead column
        for kept in (None, mask):
            scale = ops.column_scale(weight, kept, method="rms", group_size=group_size)
            packed = round_to_nearest(weight, kept, scale, bits=bits, group_size=group_size, codebook=codebook)
            assert ("dual_shift" if kept is None else "bitmap_dual_shift") == packed.NAME
            decoded = packed.to_dense(torch.float32)
            target = weight if kept is None else weight * kept
            if kept is not None:
                assert bool((decoded[~kept] == 0).all())
            if codebook == "uniform":
                grid = {"bits": bits, "group_size": group_size}
                _, rows, _ = ops.dual_shift_quantize(weight, scale, kept, **grid)
                step = rows.float().repeat_interleave(group_size, 1)[:, :k] * scale.float()
                # Half a step, and up to one more where bfloat16 made the scale smaller than the range needs.
                assert bool(((decoded - target).abs() <= step * (0.5 + 2**bits / 256) + 1e-6).all())
            assert (decoded - target).norm() < {2: 0.5, 3: 0.3}.get(bits, 0.15) * target.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pruned_weights_keep_their_dtype(generator, dtype):
    weight = torch.randn(6, 70, generator=generator)
    mask = torch.rand(6, 70, generator=generator) < 0.5
    packed = pack_pruned(weight, mask, dtype)
    assert packed.values.dtype == dtype
    assert torch.equal(packed.to_dense(), weight.to(dtype) * mask)


@pytest.mark.parametrize("method", ["none", "rms", "sinq", "prism"])
def test_the_column_scale_is_the_recipes(generator, method):
    weight = torch.randn(16, 96, generator=generator) * torch.rand(96, generator=generator).add(0.05)
    result = compress_weight("w", weight, Recipe(bits=4, group_size=32, scale=method))
    assert torch.equal(result.packed.column_scale, ops.column_scale(weight, method=method, group_size=32))
    assert result.stages == ("rtn" if method == "none" else f"{method} scale > rtn")
    assert result.mask is None and result.pruned == 0


def test_a_column_scale_pays(generator):
    weight = torch.randn(64, 128, generator=generator) * torch.logspace(-1, 1, 128)
    errors = {
        method: float((compress_weight("w", weight, Recipe(bits=3, scale=method)).packed.to_dense() - weight).norm())
        for method in ("none", "rms", "sinq", "prism")
    }
    assert max(errors[m] for m in ("rms", "sinq", "prism")) < 0.8 * errors["none"], errors


def test_one_group_per_row(generator):
    packed = compress_weight("w", torch.randn(4, 100, generator=generator), Recipe(bits=4, group_size=None)).packed
    assert packed.scale.shape == (1, 1, 16) and packed.group_size == 100


def test_weights_that_are_not_finite_are_named():
    weight = torch.ones(2, 3)
    weight[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"model\.q: weight must be finite, got nan at \[1, 2\]"):
        compress_weight("model.q", weight, Recipe.from_preset("sinq"))
