"""dual_shift_pack and dual_shift_unpack on the device against the reference on the CPU, bit for bit."""

import pytest
import torch

from prism_kernels import dispatch, ops
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.dual_shift_pack import dual_shift_pack as reference

pytestmark = pytest.mark.gpu

SHAPES = [(1, 1), (3, 7), (5, 63), (17, 130), (0, 16), (3, 0), (33, 256), (16, 1000)]


def check(n, k, bits, generator, device):
    codes = torch.randint(256, (n, k), generator=generator, dtype=torch.uint8)
    packed = ops.dual_shift_pack(codes.to(device), bits)
    assert torch.equal(packed.cpu(), reference(codes, bits)), (n, k, bits)
    assert torch.equal(ops.dual_shift_unpack(packed, n, k, bits).cpu(), codes & (2**bits - 1)), (n, k, bits)


@pytest.mark.parametrize("op", ["dual_shift_pack", "dual_shift_unpack"])
def test_has_a_compiled_kernel(op):
    assert dispatch.has_compiled(op, "cuda")


def test_sanitized_odd_shape(generator, device):
    check(33, 203, 5, generator, device)


@pytest.mark.parametrize("bits", BITS)
def test_matches_reference(poison, generator, device, bits):
    for n, k in SHAPES:
        check(n, k, bits, generator, device)


def test_compiles_to_one_graph(generator, device):
    codes = torch.randint(16, (17, 130), generator=generator, dtype=torch.uint8).to(device)
    round_trip = torch.compile(lambda c: ops.dual_shift_unpack(ops.dual_shift_pack(c, 4), 17, 130, 4), fullgraph=True)
    assert torch.equal(round_trip(codes), codes)
