"""bitmap_dual_shift_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, GROUPS, dual_shift, masks, mixed_mask, quad_mask
from prism_kernels import dispatch, ops
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

#: One grid for each way through the kernels.
FEW_GRIDS = [(4, "uniform"), (3, "uniform"), (8, "uniform"), (4, "nf4")]


#: Both sides of every number of tokens that a kernel takes at once.
TOKENS = (0, 1, 2, 3, 4, 5, 8, 12, 13, 16, 17, 25, 33)


def linear(x, problem, bias=None, activation_bits=None):
    return ops.bitmap_dual_shift_linear(x, *problem.tensors, bias, **problem.grid, activation_bits=activation_bits)


def exact(x, problem, bias=None, activation_bits=None):
    """What the last call should have given; AVX512-BF16 multiplies bfloat16 factors: x * column_scale and levels."""
    pairs = dispatch.last_kernel() == "bitmap_dual_shift_linear:avx512_bf16" and x.dtype == torch.bfloat16
    if activation_bits is None and pairs:
        y = (x.float() * problem.column_scale.float()).bfloat16().double() @ problem.rounded.T
    elif activation_bits is None:
        y = x.double() @ problem.exact.T
    else:
        quantized, scale = quantize_activations(x, problem.column_scale)
        y = quantized.double() @ problem.unscaled.T * scale.double()
    return y if bias is None else y + bias.double()


def test_literal(isa):
    codes, mask = torch.zeros(17, 3, dtype=torch.uint8), torch.zeros(17, 3, dtype=torch.bool)
    codes[0], mask[0] = torch.tensor([9, 3, 12]), torch.tensor([False, True, True])
    codes[16, 0], mask[16, 0] = 2, True
    packed = ops.bitmap_dual_shift_pack(codes, mask, 4)
    scale, zero = torch.ones(2, 1, 16).bfloat16(), torch.zeros(2, 1, 8, dtype=torch.uint8)
    scale[0, 0, 0], zero[0, 0, 0], zero[1, 0, 0] = 0.5, 5, 7
    column_scale = torch.tensor([1.0, 4.0, 0.25]).bfloat16()
    x = torch.tensor([[100.0, 1.0, 8.0]])
    expected = torch.ones(1, 17)
    expected[0, 0] += (3 - 5) * 0.5 * 4.0 + (12 - 5) * 0.5 * 0.25 * 8.0
    expected[0, 16] += (2 - 7) * 100.0
    for dtype in FLOATS:
        tensors = (*packed, scale, zero, column_scale, torch.ones(17).to(dtype))
        y = ops.bitmap_dual_shift_linear(x.to(dtype), *tensors, n=17, bits=4, group_size=64)
        assert torch.equal(y, expected.to(dtype))
        isa.assert_served("bitmap_dual_shift_linear", best="avx512")


def test_literal_of_quantized_activations(isa):
    mask = torch.tensor([[True, True, False, True]])
    packed = ops.bitmap_dual_shift_pack(torch.tensor([[1, 3, 0, 2]], dtype=torch.uint8), mask, 2)
    scale, zero = torch.full((1, 1, 16), 0.5).bfloat16(), torch.ones(1, 1, 8, dtype=torch.uint8)
    tensors = (*packed, scale, zero, torch.tensor([1.0, 2.0, 1.0, 0.5]).bfloat16())
    # x c = 254, 5, 127, -1 and s = 2: q = 127, 2 (half to even), 64, 0; then a token of zeros.
    x = torch.tensor([[254.0, 2.5, 127.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    y = ops.bitmap_dual_shift_linear(x, *tensors, n=1, bits=2, group_size=4, activation_bits=8)
    assert y.tolist() == [[2 * 0.5 * (0 * 127 + 2 * 2 + 1 * 0)], [0.0]]


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.randn(problem.n, generator=generator).to(x_dtype)
        mask = mixed_mask(problem.n, problem.k, generator)
        for i, (bits, codebook) in enumerate(GRIDS):
            weight = dual_shift(mask, bits, 64, codebook, generator)
            b = bias if i % 2 else None
            y = linear(x, weight, b)
            assert y.dtype == x_dtype
            assert_matches(y, exact(x, weight, b), problem.k)


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_quantized_activations_match_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        x[1:2] = 0
        bias = torch.randn(problem.n, generator=generator).to(x_dtype)
        mask = mixed_mask(problem.n, problem.k, generator)
        for i, (bits, codebook) in enumerate(GRIDS):
            if codebook == "uniform":
                weight = dual_shift(mask, bits, 64, codebook, generator)
                b = bias if i % 2 else None
                assert_matches(linear(x, weight, b, 8), exact(x, weight, b, 8), problem.k)


def test_every_group_size(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (6, 35, 449)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for bits, codebook in FEW_GRIDS:
                for group_size in GROUPS:
                    weight = dual_shift(mixed_mask(n, k, generator), bits, group_size, codebook, generator)
                    for activation_bits in (None, 8) if codebook == "uniform" else (None,):
                        y = linear(x, weight, None, activation_bits)
                        assert_matches(y, exact(x, weight, None, activation_bits), k)


def test_every_mask(isa, poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            for _, mask in [*masks(n, k, generator), ("2:4", quad_mask(n, k, generator))]:
                for bits, codebook in FEW_GRIDS:
                    weight = dual_shift(mask, bits, 64, codebook, generator)
                    y = linear(x, weight)
                    assert_matches(y, exact(x, weight), k)
                    assert not y[:, ~mask.any(dim=1)].any()


def test_every_number_of_tokens(isa, generator):
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(33, 200, generator=generator).to(dtype)
        for bits, codebook in FEW_GRIDS:
            weight = dual_shift(mixed_mask(33, 200, generator), bits, 64, codebook, generator)
            for m in TOKENS:
                for activation_bits in (None, 8) if codebook == "uniform" else (None,):
                    y = linear(x[:m], weight, None, activation_bits)
                    assert_matches(y, exact(x[:m], weight, None, activation_bits), 200)


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_a_column_far_above_the_others(isa, generator, m):
    """The scale of a group of activations is that of its largest: one kept and one that every row prunes."""
    mask = mixed_mask(33, 640, generator)
    mask[:, 70] = False
    for bits in (3, 4, 8):
        weight = dual_shift(mask, bits, 64, "uniform", generator)
        x = torch.randn(m, 640, generator=generator)
        x[:, 5] *= 300
        x[:, 70] *= 300
        x = x.bfloat16()
        assert_matches(linear(x, weight), exact(x, weight), 640)


def test_what_is_not_finite_stays_so(isa, generator):
    weight = dual_shift(torch.ones(20, 128, dtype=torch.bool), 4, 64, "uniform", generator)
    for value in (torch.inf, -torch.inf, torch.nan):
        x = torch.randn(2, 128, generator=generator).bfloat16()
        x[1, 70] = value
        y = linear(x, weight)
        assert y[0].isfinite().all() and not y[1, weight.exact[:, 70] != 0].isfinite().any()


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
                one = [linear(x, weight, None, activation_bits) for activation_bits in (None, 8)]
                torch.set_num_threads(3)
                many = [linear(x, weight, None, activation_bits) for activation_bits in (None, 8)]
                assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
            finally:
                torch.set_num_threads(threads)


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_gradients(generator, activation_bits):
    weight = dual_shift(mixed_mask(5, 70, generator), 4, 64, "uniform", generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(5, generator=generator, requires_grad=True)
    y = linear(x, weight, bias, activation_bits)
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
        for activation_bits in (None, 8) if codebook == "uniform" else (None,):
            arguments = (x, *weight.tensors, b, *weight.grid.values(), activation_bits)
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
        ({"scale": torch.ones(1, 1, 16)}, TypeError, "scale must have dtype bfloat16, got torch.float32"),
        ({"codebook": "nf4", "bits": 5}, ValueError, "bits must be 4 for codebook 'nf4', got 5"),
        ({"activation_bits": 4}, ValueError, "activation_bits must be 8 or None, got 4"),
        (
            {"codebook": "nf4", "zero": torch.zeros(1, 1, 0).byte(), "activation_bits": 8},
            ValueError,
            "activation_bits must be None unless the codebook is uniform, got 8",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "x": torch.ones(1, 64),
        "bitmap": torch.zeros(1, 16, 8, dtype=torch.uint8),
        "codes": torch.zeros(0, dtype=torch.uint8),
        "panel_offsets": torch.zeros(2, dtype=torch.int64),
        "scale": torch.ones(1, 1, 16).bfloat16(),
        "zero": torch.zeros(1, 1, 8, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
        "n": 2,
        "bits": 4,
        "group_size": 64,
    }
    with pytest.raises(error, match=f"bitmap_dual_shift_linear: {message}"):
        ops.bitmap_dual_shift_linear(**(good | changes))
