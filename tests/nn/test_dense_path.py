"""The dense path in tiles of whole panels equals the whole decode, for every format and an n that is no multiple."""

import pytest
import torch
import torch.nn.functional as F

from prism_kernels import ops
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    DualShiftLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
)
from prism_kernels.testing import assert_matches

CLASSES = [BitmapDualShiftLinear, BitmapLinear, DualShiftLinear, Sparse24DualShiftLinear, Sparse24Linear]


@pytest.mark.parametrize("module_class", CLASSES)
@pytest.mark.parametrize("rows", [16, 32, 48])
def test_tiles_equal_the_whole(module_class, rows, generator):
    linear = torch.nn.Linear(130, 33)
    with torch.no_grad():
        linear.weight[~ops.nm_mask(torch.rand(33, 130, generator=generator), 2, 4)] = 0
    module = module_class.from_linear(linear)
    whole = module.decode(torch.float32)
    assert torch.equal(
        torch.cat([module.decode(torch.float32, b, min(b + rows, 33)) for b in range(0, 33, rows)]), whole
    )
    x = torch.randn(2, 3, 130, generator=generator)
    expected = F.linear(x.double(), whole.double(), linear.bias.double())
    assert_matches(module._tiled(x, rows), expected, 130)
