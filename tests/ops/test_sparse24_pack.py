"""sparse24_pack and sparse24_unpack: the layout by its formula, round trips, and the argument contract."""

import pytest
import torch

from bitmap_problems import SHAPES, quad_mask
from prism_kernels import ops
from prism_kernels.ops.sparse24_unpack import stored_elements
from prism_kernels.reference.sparse24_pack import sparse24_pack as reference_pack
from prism_kernels.reference.sparse24_unpack import sparse24_stored
from prism_kernels.reference.sparse24_unpack import sparse24_unpack as reference_unpack

DTYPES = (torch.float16, torch.bfloat16, torch.uint8)


def random_weight(n, k, dtype, generator):
    if dtype == torch.uint8:
        return torch.randint(16, (n, k), generator=generator, dtype=torch.uint8)
    return torch.randn(n, k, generator=generator).to(dtype)


def place(row, column):
    """(panel, tile, step, lane, register, lane of the columns, their shift) of a quad, by the formula of the layout."""
    g, h, quad = row % 16 // 2, row % 2, column % 32 // 4
    p, i, j = quad >> 2, quad >> 1 & 1, quad & 1
    step = column % 64 // 32
    lanes = 4 * g + 2 * j + p, 4 * g + 2 * step + i
    return row // 16, column // 64, step, lanes[0], 2 * i + h, lanes[1], 4 * (4 * h + 2 * j + p)


def test_layout_follows_the_formula(generator):
    n, k = 33, 136
    mask = quad_mask(n, k, generator)
    values, columns = ops.sparse24_pack(weight := random_weight(n, k, torch.bfloat16, generator), mask)
    codes, same = ops.sparse24_pack(steps := random_weight(n, k, torch.uint8, generator), mask)
    assert torch.equal(columns, same)
    for row in range(n):
        for column in range(0, k, 4):
            panel, tile, step, lane, register, holder, shift = place(row, column)
            first, second = mask[row, column : column + 4].nonzero().flatten().tolist()
            held = int(columns[panel, tile, holder]) >> shift & 15
            assert held == first | second << 2, (row, column)
            for half, c in enumerate((first, second)):
                assert values[panel, tile, step, lane, 2 * register + half] == weight[row, column + c], (row, column)
                code = int(codes[panel, tile, lane, step]) >> (4 * register + 16 * half) & 15
                assert code == steps[row, column + c], (row, column)


def test_metadata_is_that_of_cutlass(generator):
    """torch converts 2:4 weights for CUTLASS, whose kernels load one word per lane and give it to the instruction: four
    lanes hold two panels of 16 rows, with selector 0 the upper one, with 1 the lower. Rows and quads are put in the
    order of the fragments first, because CUTLASS does not permute them."""
    conversions = pytest.importorskip("torch.sparse._semi_structured_conversions")
    n, k = 64, 192
    mask = quad_mask(n, k, generator)
    _, columns = ops.sparse24_pack(torch.ones(n, k).half(), mask)
    rows = torch.arange(n).view(-1, 8, 2).transpose(1, 2).flatten()  # row 2 g + h becomes row g + 8 h
    quads = torch.arange(k // 4).view(-1, 2, 4).transpose(1, 2).flatten()  # quad 4 p + i becomes quad 2 i + p
    ordered = mask[rows].view(n, k // 4, 4)[:, quads].reshape(n, k)
    _, metadata = conversions.sparse_semi_structured_from_dense_cutlass(ordered.half())
    # [step, two panels, g, panel, half of its columns] and [two panels, panel, tile, g, step, half]
    words = metadata.flatten().view(torch.int32).view(k // 32, n // 32, 8, 2, 2)
    ours = columns.view(n // 32, 2, k // 64, 8, 2, 2)
    assert torch.equal(words.view(k // 64, 2, n // 32, 8, 2, 2), ours.permute(2, 4, 0, 3, 1, 5))


def test_round_trip_and_reference(generator):
    for n, k in SHAPES:
        for dtype in DTYPES:
            for density in (1.0, 0.6, 0.0):
                weight, mask = random_weight(n, k, dtype, generator), quad_mask(n, k, generator, density)
                packed, columns = ops.sparse24_pack(weight, mask)
                expected = reference_pack(weight, mask)
                assert torch.equal(packed, expected[0]) and torch.equal(columns, expected[1])
                decoded, stored = ops.sparse24_unpack(packed, columns, n, k), stored_elements(columns, n, k)
                assert torch.equal(decoded, torch.where(mask, weight, 0)), (n, k, dtype, density)
                assert bool(stored[mask].all())
                assert torch.equal(decoded, reference_unpack(packed, columns, n, k))
                assert torch.equal(stored, sparse24_stored(columns, n, k))
                for begin in range(0, k, 4):
                    quad = stored[:, begin : begin + 4]
                    assert (quad.sum(1) == min(2, quad.shape[1])).all(), (n, k, begin)


def test_columns_rise_everywhere(generator):
    """Padding too: the instruction has no meaning for others."""
    _, columns = ops.sparse24_pack(torch.randn(17, 65).half(), quad_mask(17, 65, generator, 0.5))
    for shift in range(0, 32, 4):
        nibble = columns.long() >> shift & 15
        assert bool((nibble & 3 < nibble >> 2).all())


def test_bits_per_weight(generator):
    mask = quad_mask(64, 256, generator)
    values, columns = ops.sparse24_pack(torch.randn(64, 256).half(), mask)
    assert 8 * (values.nbytes + columns.nbytes) == 9 * 64 * 256
    codes, columns = ops.sparse24_pack(torch.zeros(64, 256, dtype=torch.uint8), mask)
    assert 8 * (codes.nbytes + columns.nbytes) == 3 * 64 * 256


def test_strided_input(generator):
    weight, mask = torch.randn(70, 12, generator=generator).half().T, quad_mask(12, 70, generator)
    for actual, expected in zip(ops.sparse24_pack(weight, mask), reference_pack(weight, mask), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(17, 65), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape, dtype, generator):
    weight, mask = random_weight(*shape, dtype, generator), quad_mask(*shape, generator)
    torch.library.opcheck(torch.ops.prism.sparse24_pack.default, (weight, mask))
    packed = ops.sparse24_pack(weight, mask)
    torch.library.opcheck(torch.ops.prism.sparse24_unpack.default, (*packed, *shape))


def test_compiles_to_one_graph(generator):
    weight, mask = torch.randn(17, 65, generator=generator).half(), quad_mask(17, 65, generator)

    def call(weight, mask):
        return ops.sparse24_unpack(*ops.sparse24_pack(weight, mask), 17, 65)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(weight, mask), call(weight, mask))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sparse24_pack(torch.zeros(4).half(), torch.ones(4).bool()), ValueError,
         r"sparse24_pack: weight must have shape \[\*, \*\], got \[4\]"),
        (lambda: ops.sparse24_pack(torch.zeros(2, 4), torch.ones(2, 4).bool()), TypeError,
         "sparse24_pack: weight must have dtype float16 or bfloat16 or uint8, got torch.float32"),
        (lambda: ops.sparse24_pack(torch.zeros(2, 4).half(), torch.ones(2, 3).bool()), ValueError,
         r"sparse24_pack: mask must have shape \[2, 4\], got \[2, 3\]"),
        (lambda: ops.sparse24_unpack(torch.zeros(1, 1, 32, 2).int(), torch.zeros(1, 2, 32).int(), 2, 4), ValueError,
         r"sparse24_unpack: columns must have shape \[1, 1, 32\], got \[1, 2, 32\]"),
        (lambda: ops.sparse24_unpack(torch.zeros(1, 1, 32, 8).half(), torch.zeros(1, 1, 32).int(), 2, 4), ValueError,
         r"sparse24_unpack: packed must have shape \[1, 1, 2, 32, 8\], got"),
        (lambda: ops.sparse24_unpack(torch.zeros(1, 1, 32, 2).int(), torch.zeros(1, 1, 32).int(), -1, 4), ValueError,
         "sparse24_unpack: n must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_errors_name_argument_rule_and_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
