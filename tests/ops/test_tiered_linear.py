"""tiered_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.formats import TieredWeight
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from tiered_problems import tier_maps, tiered


def arguments(packed):
    return (packed.tiers, packed.masks, packed.values, packed.panel_offsets())


def linear(x, packed, bias=None):
    return ops.tiered_linear(x, *arguments(packed), bias, n=packed.shape[0])


def exact(x, packed, bias=None):
    y = x.double() @ packed.to_dense().double().T
    return y if bias is None else y + bias.double()


def test_literal(isa):
    weight = torch.zeros(17, 18)
    weight[0, :4] = torch.tensor([4.0, 1.0, -3.0, 2.0])  # a 2:4 tile: keeps 4 and -3
    weight[1, 16:] = torch.tensor([1.0, -5.0])  # a top-1 tile: keeps -5
    weight[16, 0] = 7.0  # a dense tile
    packed = TieredWeight.pack(weight, torch.tensor([[1, 2], [0, 3]]), top_k=1)
    x = torch.arange(1.0, 19.0).unsqueeze(0)
    expected = [0.0] * 17
    expected[0], expected[1], expected[16] = 4.0 - 9.0, -5.0 * 18, 7.0
    assert linear(x, packed)[0].tolist() == expected
    isa.assert_served("tiered_linear", best="avx512")
    half = TieredWeight.pack(weight.bfloat16(), torch.tensor([[1, 2], [0, 3]]), top_k=1)
    assert linear(x.bfloat16(), half, torch.ones(17).bfloat16())[0].tolist() == [y + 1 for y in expected]
    isa.assert_served("tiered_linear")


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.ones(problem.n, dtype=x_dtype)
        for dtype in FLOATS:
            packed = tiered(problem.n, problem.k, dtype, generator)
            y = linear(x, packed)
            assert y.dtype == x_dtype
            assert_matches(y, exact(x, packed), problem.k)
            if problem.k > 16:
                assert_matches(linear(x, packed, bias), exact(x, packed, bias), problem.k)


def test_every_map(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (13, 50, 320)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            weight = torch.randn(n, k, generator=generator).to(dtype)
            for tiers in tier_maps(n, k, generator):
                packed = TieredWeight.pack(weight, tiers)
                assert_matches(linear(x, packed), exact(x, packed), k)


def test_every_number_of_tokens(isa, generator):
    packed = tiered(49, 530, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(41, 530, generator=generator).to(dtype)
        for m in (*range(27), 41):
            assert_matches(linear(x[:m], packed), exact(x[:m], packed), 530)


def test_shapes_and_strides(isa, generator):
    packed = tiered(9, 70, torch.bfloat16, generator)
    for dtype in FLOATS:
        for x in (
            torch.randn(70, generator=generator),
            torch.randn(2, 3, 70, generator=generator),
            torch.randn(70, 5, generator=generator).T,
            torch.randn(4, 140, generator=generator)[:, ::2],
            torch.randn(2, 0, 70, generator=generator),
        ):
            x = x.to(dtype)
            y = linear(x, packed)
            assert y.shape == (*x.shape[:-1], 9)
            assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), packed), 70)


def test_no_rows_and_no_columns(isa):
    assert linear(torch.ones(2, 5), TieredWeight.pack(torch.ones(0, 5))).shape == (2, 0)
    assert linear(torch.ones(2, 0), TieredWeight.pack(torch.ones(3, 0)), torch.ones(3)).tolist() == [[1.0] * 3] * 2


def test_thread_count_does_not_matter(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        packed = tiered(301, 320, dtype, generator)
        for m in (1, 3, 30):
            x = torch.randn(m, 320, generator=generator).to(dtype)
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(1)
                one = linear(x, packed)
                torch.set_num_threads(3)
                assert torch.equal(one, linear(x, packed))
            finally:
                torch.set_num_threads(threads)


def test_gradients(generator):
    packed = tiered(20, 70, torch.float32, generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(20, generator=generator, requires_grad=True)
    y = linear(x, packed, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ packed.to_dense().double(), 20)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    packed = tiered(20, 70, torch.float32, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(20, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.prism.tiered_linear.default, (x, *arguments(packed), bias, 20))
    torch.library.opcheck(torch.ops.prism.tiered_linear.default, (x, *arguments(packed), None, 20))


def test_compiles_to_one_graph(generator):
    packed = tiered(20, 70, torch.bfloat16, generator)
    x = torch.randn(2, 3, 70, generator=generator).bfloat16()
    compiled = torch.compile(lambda x, *t: ops.tiered_linear(x, *t, n=20), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *arguments(packed)), linear(x, packed))


@pytest.mark.parametrize("offsets", [[[0, 3], [1, 2]], [[0, -1], [0, 0]], [[0, 0], [2, 0]], [[0, 0], [1, 257]]])
def test_offsets_outside_the_streams_are_refused(isa, offsets):
    tensors = torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1, 32, dtype=torch.uint8), torch.ones(256)
    with pytest.raises(RuntimeError, match="tiered_linear: panel_offsets must rise from 0 or more to at most 1 masks"):
        ops.tiered_linear(torch.ones(1, 16), *tensors, torch.tensor(offsets), n=16)


def test_a_map_that_promises_more_than_is_stored_reads_nothing_else(isa):
    tiers, masks = torch.zeros(2, 3, dtype=torch.uint8), torch.full((1, 32), 255, dtype=torch.uint8)
    tiers[0, 1:] = 2
    offsets = torch.zeros(3, 2, dtype=torch.int64)
    for dtype in (torch.float32, torch.bfloat16):
        y = ops.tiered_linear(torch.ones(1, 48).to(dtype), tiers, masks, torch.ones(9).to(dtype), offsets, n=32)
        assert float(y.float().sum()) == 18.0  # both panels see the same nine ones, all else counts as 0


U8, I64 = torch.uint8, torch.int64


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 20).int()}, TypeError, "x must have dtype float32 .*, got torch.int32"),
        ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.ones(1, 33)}, ValueError, r"tiers must have shape \[2, 3\], got \[2, 2\]"),
        ({"masks": torch.ones(2, 31, dtype=U8)}, ValueError, r"masks must have shape \[\*, 32\], got \[2, 31\]"),
        ({"values": torch.ones(2, dtype=I64)}, TypeError, "values must have dtype float32 .*, got torch.int64"),
        ({"panel_offsets": torch.zeros(2, 2, dtype=I64)}, ValueError, r"panel_offsets must have shape \[3, 2\]"),
        ({"bias": torch.ones(20).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \[20\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    given = {
        "x": torch.ones(1, 20),
        "tiers": torch.zeros(2, 2, dtype=U8),
        "masks": torch.zeros(0, 32, dtype=U8),
        "values": torch.ones(4 * 256),
        "panel_offsets": torch.tensor([[0, 0], [0, 512], [0, 1024]]),
    }
    ops.tiered_linear(**given, n=20)
    with pytest.raises(error, match=f"tiered_linear: {message}"):
        ops.tiered_linear(**(given | changes), n=20)
