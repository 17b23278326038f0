"""bitmap_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches


def exact(x, weight, bias=None):
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def pruned(n, k, dtype, generator, mask=None):
    mask = mixed_mask(n, k, generator) if mask is None else mask
    weight = torch.where(mask, torch.randn(n, k, generator=generator), 0).to(dtype)
    return weight, ops.bitmap_pack(weight, mask)


def test_literal(isa):
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, -3.0, 0.5]])
    x = torch.tensor([[1.0, 2.0, 4.0]])
    assert ops.bitmap_linear(x, *ops.bitmap_pack(weight)).tolist() == [[9.0, 0.0, -4.0]]
    isa.assert_served("bitmap_linear", best="avx512")
    half = [t.bfloat16() if t.is_floating_point() else t for t in ops.bitmap_pack(weight)]
    assert ops.bitmap_linear(x.bfloat16(), *half, torch.ones(3).bfloat16()).tolist() == [[10.0, 1.0, -3.0]]
    isa.assert_served("bitmap_linear")


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.randn(problem.n, generator=generator).to(x_dtype)
        for dtype in FLOATS:
            weight, packed = pruned(problem.n, problem.k, dtype, generator)
            for b in (None, bias):
                y = ops.bitmap_linear(x, *packed, b)
                assert y.dtype == x_dtype
                assert_matches(y, exact(x, weight, b), problem.k)


def test_every_mask(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (5, 33, 320), (9, 32, 64)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for _, mask in masks(n, k, generator):
                weight, packed = pruned(n, k, dtype, generator, mask)
                y = ops.bitmap_linear(x, *packed)
                assert_matches(y, exact(x, weight), k)
                dead = ~mask.any(dim=1)
                assert not y[:, dead].any()


def test_every_number_of_tokens(isa, generator):
    weight, packed = pruned(11, 200, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(20, 200, generator=generator).to(dtype)
        for m in range(21):
            assert_matches(ops.bitmap_linear(x[:m], *packed), exact(x[:m], weight), 200)


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
            y = ops.bitmap_linear(x, *packed)
            assert y.shape == (*x.shape[:-1], 9)
            assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), weight), 70)


def test_thread_count_does_not_matter(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        _, packed = pruned(301, 320, dtype, generator)
        for m in (1, 3, 8):
            x = torch.randn(m, 320, generator=generator).to(dtype)
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(1)
                one = ops.bitmap_linear(x, *packed)
                torch.set_num_threads(3)
                assert torch.equal(one, ops.bitmap_linear(x, *packed))
            finally:
                torch.set_num_threads(threads)


def test_gradients(generator):
    weight, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    y = ops.bitmap_linear(x, *packed, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ weight.double(), 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    _, packed = pruned(5, 70, torch.float32, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.prism.bitmap_linear.default, (x, *packed, bias))
    torch.library.opcheck(torch.ops.prism.bitmap_linear.default, (x, *packed, None))


def test_compiles_to_one_graph(generator):
    _, packed = pruned(5, 70, torch.bfloat16, generator)
    x = torch.randn(2, 3, 70, generator=generator).bfloat16()
    compiled = torch.compile(lambda x, *t: ops.bitmap_linear(x, *t), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *packed), ops.bitmap_linear(x, *packed))


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 4]])
def test_offsets_outside_the_values_are_refused(isa, offsets):
    bitmap = torch.full((2, 8), 1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="bitmap_linear: row_offsets must rise from 0 or more to at most 3"):
        ops.bitmap_linear(torch.ones(1, 64), bitmap, torch.ones(3), torch.tensor(offsets, dtype=torch.int32))


U8, I32 = torch.uint8, torch.int32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(1, 64).int(),), TypeError, "x must have dtype float32 .*, got torch.int32"),
        ((torch.tensor(1.0),), ValueError, "x must have at least 1 dimension, got 0"),
        ((torch.ones(1, 65),), ValueError, r"bitmap must have shape \[\*, 16\], got \[2, 8\]"),
        ((torch.ones(1, 64), torch.ones(3)), TypeError, "bias must have dtype bfloat16, got torch.float32"),
        ((torch.ones(1, 64), torch.ones(3).bfloat16()), ValueError, r"bias must have shape \[2\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    x, *bias = arguments
    x = x.bfloat16() if x.is_floating_point() else x
    packed = (torch.zeros(2, 8, dtype=U8), torch.zeros(0), torch.zeros(3, dtype=I32))
    with pytest.raises(error, match=f"bitmap_linear: {message}"):
        ops.bitmap_linear(x, *packed, *bias)
