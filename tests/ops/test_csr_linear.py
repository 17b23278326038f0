"""csr_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels import ops
from prism_kernels.formats import CsrWeight
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches


def pruned(n, k, dtype, generator, *, wide=False):
    weight = torch.randn(n, k, generator=generator).to(dtype)
    packed = CsrWeight.pack(weight, mixed_mask(n, k, generator))
    columns = packed.columns.int() & 0xFFFF if wide else packed.columns
    offsets = packed.row_offsets.long() if wide else packed.row_offsets
    return packed.to_dense(), (packed.values, columns, offsets)


def exact(x, weight, bias=None):
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def test_literal(isa):
    packed = torch.tensor([2.0, -3.0, 0.5]), torch.tensor([2, 1, 2]).short(), torch.tensor([0, 1, 1, 3]).int()
    x = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 2.0]])
    assert ops.csr_linear(x, *packed).tolist() == [[8.0, 0.0, -4.0], [4.0, 0.0, -2.0]]
    isa.assert_served("csr_linear", best="avx512")
    assert ops.csr_linear(x[0].bfloat16(), *packed, torch.ones(3).bfloat16()).tolist() == [9.0, 1.0, -3.0]


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.ones(problem.n, dtype=x_dtype)
        for dtype in FLOATS:
            for wide in (False, True):
                weight, packed = pruned(problem.n, problem.k, dtype, generator, wide=wide)
                y = ops.csr_linear(x, *packed)
                assert y.dtype == x_dtype
                assert_matches(y, exact(x, weight), problem.k)
                if problem.k > 16:
                    assert_matches(ops.csr_linear(x, *packed, bias), exact(x, weight, bias), problem.k)


def test_every_number_of_tokens(isa, poison, generator):
    weight, packed = pruned(33, 200, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(130, 200, generator=generator).to(dtype)
        for m in (*range(20), 31, 32, 33, 64, 65, 112, 130):
            assert_matches(ops.csr_linear(x[:m], *packed), exact(x[:m], weight), 200)


def test_columns_beyond_15_bits(isa, generator):
    for k in (40_000, 65_536, 70_000):
        columns = torch.tensor([0, 32_767, 32_768, k - 1])
        columns = columns.int() if k > 65_536 else columns.int().short()
        packed = torch.tensor([1.0, 2.0, 3.0, 4.0]), columns, torch.tensor([0, 1, 4]).int()
        for m in (1, 3):
            x = torch.randn(m, k, generator=generator)
            y = 2 * x[:, 32_767] + 3 * x[:, 32_768] + 4 * x[:, k - 1]
            assert_matches(ops.csr_linear(x, *packed), torch.stack([x[:, 0], y], 1).double(), 3)


def test_an_infinite_activation_reaches_only_rows_that_read_it(isa):
    packed = torch.ones(3), torch.tensor([1, 2, 0]).short(), torch.tensor([0, 2, 3]).int()
    for m in (1, 2):
        x = torch.tensor([[torch.inf, 1.0, 1.0]]).repeat(m, 1)
        assert ops.csr_linear(x, *packed).tolist() == [[2.0, torch.inf]] * m


def test_a_column_out_of_range_reads_inside_x(isa):
    packed = torch.ones(2), torch.tensor([7, -1]).int(), torch.tensor([0, 2]).int()
    for m in (1, 2):
        assert ops.csr_linear(torch.ones(m, 3), *packed).tolist() == [[2.0]] * m


def test_no_rows_and_no_columns(isa):
    nothing = torch.ones(0), torch.ones(0).short()
    for m in (1, 2):
        assert ops.csr_linear(torch.ones(m, 5), *nothing, torch.zeros(1).int()).shape == (m, 0)
        y = ops.csr_linear(torch.ones(m, 0), *nothing, torch.zeros(3).int(), torch.ones(2))
        assert y.tolist() == [[1.0, 1.0]] * m


def test_shapes_and_strides(isa, generator):
    weight, packed = pruned(9, 70, torch.bfloat16, generator)
    for dtype in FLOATS:
        for x in (
            torch.randn(70, generator=generator),
            torch.randn(2, 3, 70, generator=generator),
            torch.randn(70, 5, generator=generator).T,
            torch.randn(2, 0, 70, generator=generator),
        ):
            x = x.to(dtype)
            y = ops.csr_linear(x, *packed)
            assert y.shape == (*x.shape[:-1], 9)
            assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), weight), 70)


def test_thread_count_does_not_matter(isa, generator):
    _, packed = pruned(301, 320, torch.bfloat16, generator)
    for m in (1, 3, 40):
        x = torch.randn(m, 320, generator=generator)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = ops.csr_linear(x, *packed)
            torch.set_num_threads(3)
            assert torch.equal(one, ops.csr_linear(x, *packed))
        finally:
            torch.set_num_threads(threads)


def test_gradients(generator):
    weight, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    y = ops.csr_linear(x, *packed, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ weight.double(), 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    _, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.prism.csr_linear.default, (x, *packed, bias))
    torch.library.opcheck(torch.ops.prism.csr_linear.default, (x, *packed, None))


def test_compiles_to_one_graph(generator):
    _, packed = pruned(5, 70, torch.bfloat16, generator)
    x = torch.randn(2, 3, 70, generator=generator).bfloat16()
    compiled = torch.compile(lambda x, *t: ops.csr_linear(x, *t), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *packed), ops.csr_linear(x, *packed))


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 4]])
def test_offsets_outside_the_values_are_refused(isa, offsets):
    packed = torch.ones(3), torch.zeros(3).short(), torch.tensor(offsets).int()
    with pytest.raises(RuntimeError, match="csr_linear: row_offsets must rise from 0 or more to at most 3"):
        ops.csr_linear(torch.ones(1, 4), *packed)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 3).int()}, TypeError, "x must have dtype float32 .*, got torch.int32"),
        ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.ones(1, 65_537)}, ValueError, "columns must be int32 for more than 65536 columns, got"),
        ({"columns": torch.zeros(2).short()}, ValueError, r"columns must have shape \[3\], got \[2\]"),
        ({"columns": torch.zeros(3).long()}, TypeError, "columns must have dtype int16 or int32, got torch.int64"),
        ({"row_offsets": torch.zeros(0).int()}, ValueError, r"row_offsets must have n \+ 1 elements, got 0"),
        ({"bias": torch.ones(2).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \[2\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    given = {"x": torch.ones(1, 3), "values": torch.ones(3), "columns": torch.zeros(3).short()}
    given |= {"row_offsets": torch.tensor([0, 1, 3]).int()}
    ops.csr_linear(**given)
    with pytest.raises(error, match=f"csr_linear: {message}"):
        ops.csr_linear(**(given | changes))
