"""CsrWeight and csr_unpack: lossless, the byte formula, torch's own CSR, and bad tensors are refused."""

import copy

import pytest
import torch

from bitmap_problems import FLOATS, masks
from prism_kernels import ops
from prism_kernels.formats import CsrWeight, FormatError
from prism_kernels.reference.csr_unpack import csr_unpack as reference

SHAPES = [(1, 1), (2, 7), (3, 63), (5, 65), (2, 1009), (0, 16), (3, 0)]


def test_round_trip_and_bytes(isa, poison, generator):
    for n, k in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(n, k, generator=generator).to(dtype)
            for name, mask in masks(n, k, generator):
                packed = CsrWeight.pack(weight, mask)
                packed.validate()
                assert packed.shape == (n, k)
                assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0)), (n, k, dtype, name)
                assert torch.equal(packed.kept(), mask)
                assert torch.equal(packed.to_dense(), reference(packed.values, packed.columns, packed.row_offsets, k))
                assert packed.nbytes == int(mask.sum()) * (weight.element_size() + 2) + 4 * (n + 1)
                again = CsrWeight.from_tensors(packed.tensors(), packed.config())
                assert torch.equal(again.to_dense(), packed.to_dense())


def test_equals_torch(generator):
    weight = torch.randn(20, 30, generator=generator) * (torch.rand(20, 30, generator=generator) < 0.3)
    packed, theirs = CsrWeight.pack(weight), weight.to_sparse_csr()
    assert torch.equal(packed.values, theirs.values())
    assert torch.equal(packed.columns.long(), theirs.col_indices())
    assert torch.equal(packed.row_offsets.long(), theirs.crow_indices())


def test_wide_columns(isa):
    for k, dtype in ((65_536, torch.int16), (65_537, torch.int32)):
        weight = torch.zeros(2, k)
        weight[0, 40_000], weight[1, -1] = 1.0, 2.0
        packed = CsrWeight.pack(weight)
        packed.validate()
        assert packed.columns.dtype == dtype
        assert torch.equal(packed.to_dense(), weight)


def test_some_rows(isa, generator):
    packed = CsrWeight.pack(torch.randn(9, 20, generator=generator), torch.rand(9, 20, generator=generator) < 0.4)
    part = ops.csr_unpack(packed.values, packed.columns, packed.row_offsets[3:6], 20)
    assert torch.equal(part, packed.to_dense()[3:5])


def test_opcheck(generator):
    packed = CsrWeight.pack(torch.randn(4, 9, generator=generator))
    arguments = (packed.values, packed.columns, packed.row_offsets, 9)
    torch.library.opcheck(torch.ops.prism.csr_unpack.default, arguments)


def swap_columns(tensors):
    tensors["columns"][:2] = tensors["columns"][:2].flip(0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("values"), r"tensors must be values, columns, row_offsets, got \['columns', 'row_offsets'\]"),
        (lambda t: t.update(values=None), "values must be a tensor, got NoneType"),
        (lambda t: t.update(values=t["values"].double()), "values must have dtype float32, float16 or bfloat16, got"),
        (lambda t: t.update(columns=t["columns"].int()), "columns must have dtype int16, got torch.int32"),
        (lambda t: t.update(columns=t["columns"][1:].clone()), r"columns must have shape \[8\], got \[7\]"),
        (lambda t: t.update(columns=t["columns"] + 2), r"columns must be between 0 and 3, got \[2, 5\]"),
        (lambda t: t.update(columns=t["columns"] - 1), r"columns must be between 0 and 3, got \[0, 65535\]"),
        (swap_columns, "columns must rise within each row, got 1 that do not"),
        (lambda t: t.update(row_offsets=t["row_offsets"].long()), "row_offsets must have dtype int32, got torch.int64"),
        (lambda t: t.update(row_offsets=t["row_offsets"][1:].clone()), r"row_offsets must have shape \[3\], got \[2\]"),
        (lambda t: t.update(row_offsets=torch.tensor([0, 4, 7]).int()), r"begin at 0 and end at 8, got \[0, 7\]"),
        (lambda t: t.update(row_offsets=torch.tensor([0, 9, 8]).int()), "row_offsets must rise, got steps down to -1"),
    ],
)
def test_bad_tensors_are_refused(spoil, message):
    packed = CsrWeight.pack(torch.ones(2, 4))
    tensors = copy.deepcopy(packed.tensors())
    spoil(tensors)
    with pytest.raises(FormatError, match=f"csr: .*{message}"):
        CsrWeight.from_tensors(tensors, packed.config())


@pytest.mark.parametrize("config", [{}, {"shape": [4]}, {"shape": [3, 4]}, {"shape": [2, 4], "bits": 4}])
def test_bad_configs_are_refused(config):
    with pytest.raises(FormatError, match=r"csr: (config|shape|row_offsets) must"):
        CsrWeight.from_tensors(CsrWeight.pack(torch.ones(2, 4)).tensors(), config)


def test_pack_names_argument_rule_and_value():
    with pytest.raises(ValueError, match=r"CsrWeight.pack: weight must be \[n, k\] .*, got torch.float64 \[2, 2\]"):
        CsrWeight.pack(torch.ones(2, 2).double())
    with pytest.raises(ValueError, match=r"CsrWeight.pack: mask must be bool \[2, 2\], got torch.bool \[2, 3\]"):
        CsrWeight.pack(torch.ones(2, 2), torch.ones(2, 3).bool())
    with pytest.raises(ValueError, match=r"csr_unpack: columns must have shape \[2\], got \[1\]"):
        ops.csr_unpack(torch.ones(2), torch.zeros(1).short(), torch.zeros(2).int(), 3)
