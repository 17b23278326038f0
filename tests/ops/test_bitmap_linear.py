"""bitmap_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, masks, mixed_mask, quad_mask
from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

#: Both sides of every number of tokens that a kernel takes at once.
TOKENS = (0, 1, 2, 3, 4, 5, 8, 12, 13, 16, 17, 25, 33)


def exact(x, weight, bias=None):
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def pruned(n, k, dtype, generator, mask=None):
    mask = mixed_mask(n, k, generator) if mask is None else mask
    weight = torch.where(mask, torch.randn(n, k, generator=generator), 0).to(dtype)
    return weight, ops.bitmap_pack(weight, mask)


def linear(x, weight, packed, bias=None):
    return ops.bitmap_linear(x, *packed, bias, n=weight.shape[0])


def test_literal(isa):
    weight = torch.zeros(17, 3)
    weight[0, 0], weight[0, 2], weight[15, 1], weight[15, 2], weight[16, 1] = 1.0, 2.0, -3.0, 0.5, 8.0
    x = torch.tensor([[1.0, 2.0, 4.0]])
    expected = torch.zeros(1, 17)
    expected[0, 0], expected[0, 15], expected[0, 16] = 9.0, -4.0, 16.0
    assert torch.equal(linear(x, weight, ops.bitmap_pack(weight)), expected)
    half = weight.bfloat16()
    y = linear(x.bfloat16(), half, ops.bitmap_pack(half), torch.ones(17).bfloat16())
    assert torch.equal(y.float(), expected + 1)
    isa.assert_served("bitmap_linear")


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.randn(problem.n, generator=generator).to(x_dtype)
        for dtype in FLOATS:
            weight, packed = pruned(problem.n, problem.k, dtype, generator)
            for b in (None, bias):
                y = linear(x, weight, packed, b)
                assert y.dtype == x_dtype
                assert_matches(y, exact(x, weight, b), problem.k)


def test_every_mask(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (5, 33, 320), (9, 32, 64)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for _, mask in [*masks(n, k, generator), ("2:4", quad_mask(n, k, generator))]:
                weight, packed = pruned(n, k, dtype, generator, mask)
                y = linear(x, weight, packed)
                assert_matches(y, exact(x, weight), k)
                dead = ~mask.any(dim=1)
                assert not y[:, dead].any()


def test_every_number_of_tokens(isa, generator):
    weight, packed = pruned(33, 200, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(33, 200, generator=generator).to(dtype)
        for m in TOKENS:
            assert_matches(linear(x[:m], weight, packed), exact(x[:m], weight), 200)


def test_many_tokens_over_several_chunks(isa, generator):
    """More columns than are decoded at once, and panels that do not fill a set."""
    weight, packed = pruned(70, 1301, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(30, 1301, generator=generator).to(dtype)
        assert_matches(linear(x, weight, packed), exact(x, weight), 1301)


def test_shapes_and_strides(isa, generator):
    weight, packed = pruned(9, 70, torch.bfloat16, generator)
    for dtype in FLOATS:
        for x in (
            torch.randn(70, generator=generator),
            torch.randn(2, 3, 70, generator=generator),
            torch.randn(70, 5, generator=generator).T,
            torch.randn(4, 140, generator=generator)[:, ::2],
            torch.randn(2, 0, 70, generator=generator),
        ):
            x = x.to(dtype)
            y = linear(x, weight, packed)
            assert y.shape == (*x.shape[:-1], 9)
            assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), weight), 70)


def test_thread_count_does_not_matter(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        weight, packed = pruned(301, 320, dtype, generator)
        for m in (1, 3, 8):
            x = torch.randn(m, 320, generator=generator).to(dtype)
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(1)
                one = linear(x, weight, packed)
                torch.set_num_threads(3)
                assert torch.equal(one, linear(x, weight, packed))
            finally:
                torch.set_num_threads(threads)


def test_gradients(generator):
    weight, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    y = linear(x, weight, packed, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ weight.double(), 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    _, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.prism.bitmap_linear.default, (x, *packed, bias, 5))
    torch.library.opcheck(torch.ops.prism.bitmap_linear.default, (x, *packed, None, 5))


def test_compiles_to_one_graph(generator):
    weight, packed = pruned(5, 70, torch.bfloat16, generator)
    x = torch.randn(2, 3, 70, generator=generator).bfloat16()
    compiled = torch.compile(lambda x, *t: ops.bitmap_linear(x, *t, n=5), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *packed), linear(x, weight, packed))


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 4]])
def test_offsets_outside_the_values_are_refused(isa, offsets):
    bitmap = torch.full((2, 1, 4), 1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="bitmap_linear: panel_offsets must rise from 0 or more to at most 3"):
        ops.bitmap_linear(torch.ones(1, 2), bitmap, torch.ones(3), torch.tensor(offsets), n=32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 64).int()}, TypeError, "x must have dtype float32 .*, got torch.int32"),
        ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.ones(1, 65)}, ValueError, r"bitmap must have shape \[1, 33, 4\], got \[1, 32, 4\]"),
        ({"n": 17}, ValueError, r"bitmap must have shape \[2, 32, 4\], got \[1, 32, 4\]"),
        ({"panel_offsets": torch.zeros(2).int()}, TypeError, "panel_offsets must have dtype int64, got torch.int32"),
        ({"values": torch.zeros(0).double()}, TypeError, "values must have dtype float32 .*, got torch.float64"),
        ({"bias": torch.ones(2).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \[2\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "x": torch.ones(1, 64),
        "bitmap": torch.zeros(1, 32, 4, dtype=torch.uint8),
        "values": torch.zeros(0),
        "panel_offsets": torch.zeros(2, dtype=torch.int64),
        "n": 2,
    }
    with pytest.raises(error, match=f"bitmap_linear: {message}"):
        ops.bitmap_linear(**(good | changes))
