"""tiered_unpack: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.reference.tiered_unpack import tiered_unpack as reference
from tiered_problems import tiered

SHAPES = [(1, 1), (3, 7), (16, 16), (17, 33), (40, 70), (0, 16), (3, 0), (9, 1009)]


def arguments(packed):
    return (packed.tiers, packed.masks, packed.values, packed.panel_offsets(), *packed.shape)


def test_literal(isa):
    masks = torch.zeros(1, 32, dtype=torch.uint8)
    masks[0, 0], masks[0, 4], masks[0, 31] = 0b1001, 0b10, 0b1  # (0, 0), (1, 1); (0, 3); (12, 14)
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    offsets = torch.tensor([[0, 0], [1, 4]])
    dense = ops.tiered_unpack(torch.tensor([[2]], dtype=torch.uint8), masks, values, offsets, 16, 16)
    assert dense.nonzero().tolist() == [[0, 0], [0, 3], [1, 1], [12, 14]]
    assert dense[dense != 0].tolist() == [1.0, 3.0, 2.0, 4.0]
    isa.assert_served("tiered_unpack", best="generic" if isa.name == "avx2" else "avx512")


def test_matches_reference(isa, poison, generator):
    for n, k in SHAPES:
        for dtype in FLOATS:
            packed = tiered(n, k, dtype, generator)
            assert torch.equal(ops.tiered_unpack(*arguments(packed)), reference(*arguments(packed))), (n, k, dtype)


def test_some_panels(isa, generator):
    packed = tiered(70, 50, torch.float32, generator)
    offsets = packed.panel_offsets()
    part = ops.tiered_unpack(packed.tiers[1:4], packed.masks, packed.values, offsets[1:5], 48, 50)
    assert torch.equal(part, packed.to_dense()[16:64])


def test_opcheck(generator):
    torch.library.opcheck(torch.ops.prism.tiered_unpack.default, arguments(tiered(20, 40, torch.float32, generator)))


def test_errors_name_argument_rule_and_value(generator):
    tiers, masks, values, offsets, n, k = arguments(tiered(20, 40, torch.float32, generator))
    with pytest.raises(TypeError, match="tiers must have dtype uint8, got"):
        ops.tiered_unpack(tiers.long(), masks, values, offsets, n, k)
    with pytest.raises(ValueError, match=r"tiered_unpack: tiers must have shape \[2, 2\], got \[2, 3\]"):
        ops.tiered_unpack(tiers, masks, values, offsets, n, 20)
