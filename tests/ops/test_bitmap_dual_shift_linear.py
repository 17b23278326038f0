"""bitmap_dual_shift_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, dual_shift, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

GROUPS = (1, 5, 32, 64, 100, 128, 5000)


def linear(x, problem, bias=None):
    return ops.bitmap_dual_shift_linear(x, *problem.tensors, bias, **problem.grid)


def exact(x, problem, bias=None):
    y = x.double() @ problem.exact.T
    return y if bias is None else y + bias.double()


def test_literal(isa):
    codes = torch.tensor([[9, 3, 12], [0, 0, 0]], dtype=torch.uint8)
    mask = torch.tensor([[False, True, True], [False, False, False]])
    packed = ops.bitmap_dual_shift_pack(codes, mask, 4)
    scale, zero = torch.tensor([[0.5], [1.0]]).bfloat16(), torch.tensor([[5], [3]], dtype=torch.uint8)
    column_scale = torch.tensor([1.0, 4.0, 0.25]).bfloat16()
    x = torch.tensor([[100.0, 1.0, 8.0]])
    for dtype, best in ((torch.float32, "avx512"), (torch.bfloat16, "avx512_bf16")):
        bias = torch.tensor([1.0, 2.0]).to(dtype)
        tensors = (*packed, scale, zero, column_scale)
        y = ops.bitmap_dual_shift_linear(x.to(dtype), *tensors, bias, bits=4, group_size=64)
        assert y.tolist() == [[(3 - 5) * 0.5 * 4.0 + (12 - 5) * 0.5 * 0.25 * 8.0 + 1.0, 2.0]]
        isa.assert_served("bitmap_dual_shift_linear", best=best)


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.randn(problem.n, generator=generator).to(x_dtype)
        mask = mixed_mask(problem.n, problem.k, generator)
        for bits, codebook in GRIDS:
            weight = dual_shift(mask, bits, 64, codebook, generator)
            for b in (None, bias):
                y = linear(x, weight, b)
                assert y.dtype == x_dtype
                assert_matches(y, exact(x, weight, b), problem.k)


def test_every_group_size(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (6, 35, 448)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for bits, codebook in GRIDS:
                for group_size in GROUPS:
                    weight = dual_shift(mixed_mask(n, k, generator), bits, group_size, codebook, generator)
                    assert_matches(linear(x, weight), exact(x, weight), k)


def test_every_mask(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (5, 33, 320)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for _, mask in masks(n, k, generator):
                for bits, codebook in GRIDS:
                    weight = dual_shift(mask, bits, 64, codebook, generator)
                    y = linear(x, weight)
                    assert_matches(y, exact(x, weight), k)
                    assert not y[:, ~mask.any(dim=1)].any()


def test_every_number_of_tokens(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(20, 200, generator=generator).to(dtype)
        for bits, codebook in GRIDS:
            weight = dual_shift(mixed_mask(11, 200, generator), bits, 64, codebook, generator)
            for m in range(21):
                assert_matches(linear(x[:m], weight), exact(x[:m], weight), 200)


def test_shapes_and_strides(isa, generator):
    weight = dual_shift(mixed_mask(9, 70, generator), 4, 64, "uniform", generator)
    for dtype in FLOATS:
        for x in (
            torch.randn(70, generator=generator),
            torch.randn(2, 3, 70, generator=generator),
            torch.randn(70, 5, generator=generator).T,
            torch.randn(4, 140, generator=generator)[:, ::2],
            torch.randn(2, 0, 70, generator=generator),
        ):
            x = x.to(dtype)
            y = linear(x, weight)
            assert y.shape == (*x.shape[:-1], 9)
            assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), weight), 70)


def test_thread_count_does_not_matter(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        weight = dual_shift(mixed_mask(301, 320, generator), 4, 64, "uniform", generator)
        for m in (1, 3, 8):
            x = torch.randn(m, 320, generator=generator).to(dtype)
            threads = torch.get_num_threads()
            try:
                torch.set_num_threads(1)
                one = linear(x, weight)
                torch.set_num_threads(3)
                assert torch.equal(one, linear(x, weight))
            finally:
                torch.set_num_threads(threads)


def test_gradients(generator):
    weight = dual_shift(mixed_mask(5, 70, generator), 4, 64, "uniform", generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    y = linear(x, weight, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ weight.exact, 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize(("bits", "codebook"), [(4, "uniform"), (3, "nf3")])
def test_opcheck(generator, m, bits, codebook):
    weight = dual_shift(mixed_mask(5, 70, generator), bits, 64, codebook, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    for b in (bias, None):
        arguments = (x, *weight.tensors, b, *weight.grid.values())
        torch.library.opcheck(torch.ops.prism.bitmap_dual_shift_linear.default, arguments)


def test_compiles_to_one_graph(generator):
    weight = dual_shift(mixed_mask(5, 130, generator), 4, 64, "uniform", generator)
    x = torch.randn(2, 3, 130, generator=generator).bfloat16()

    def call(x, *tensors):
        return ops.bitmap_dual_shift_linear(x, *tensors, **weight.grid)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *weight.tensors), linear(x, weight))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 64).int()}, TypeError, "x must have dtype float32 .*, got torch.int32"),
        ({"x": torch.ones(1, 65)}, ValueError, r"x must have shape \[1, 64\], got \[1, 65\]"),
        ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"bias": torch.ones(2).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \[2\], got \[3\]"),
        ({"scale": torch.ones(2, 1)}, TypeError, "scale must have dtype bfloat16, got torch.float32"),
        ({"codebook": "nf4", "bits": 5}, ValueError, "bits must be 4 for codebook 'nf4', got 5"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "x": torch.ones(1, 64),
        "bitmap": torch.ones(2, 8, dtype=torch.uint8),
        "codes": torch.zeros(8, dtype=torch.uint8),
        "row_offsets": torch.tensor([0, 4, 8], dtype=torch.int32),
        "scale": torch.ones(2, 1).bfloat16(),
        "zero": torch.zeros(2, 1, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
        "bits": 4,
        "group_size": 64,
    }
    with pytest.raises(error, match=f"bitmap_dual_shift_linear: {message}"):
        ops.bitmap_dual_shift_linear(**(good | changes))
