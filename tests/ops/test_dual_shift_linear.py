"""dual_shift_linear: literal, reference, gradient, contract and poison tests under every instruction set."""

import pytest
import torch

from dual_shift_cases import GRIDS, make_column_scale, make_exact, make_packed, pack_tensors
from prism_kernels import dispatch, ops
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize
from prism_kernels.reference.dual_shift_linear import dual_shift_linear as reference
from prism_kernels.testing import LINEAR_PROBLEMS, LinearProblem, assert_matches

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Groups of whole blocks, of parts of a block, of one column, and longer than a row.
GROUP_SIZES = (64, 32, 128, 4096, 1, 16, 48, 100, 5, 96)
#: Around every tile of tokens that a kernel may have.
TOKENS = (0, 1, 2, 3, 4, 5, 8, 12, 13, 16, 17, 25, 33)


def linear_of(shape, bits, group_size, codebook, x, bias=None, activation_bits=None):
    """(y, the float64 reference) of the shared weight of this shape [n, k] and grid.

    Where AVX512-BF16 serves, the reference takes the same bfloat16 factors as the kernel: x * column_scale and levels.
    """
    key = (*shape, bits, group_size, codebook)
    packed = make_packed(*key)
    grid = {"n": shape[0], "bits": bits, "group_size": group_size, "codebook": codebook}
    y = ops.dual_shift_linear(x, *packed, bias, **grid, activation_bits=activation_bits)
    if activation_bits is not None:
        whole, token_scale = quantize_activations(x, packed[3])
        exact = token_scale.double() * (whole.double() @ make_exact(*key).T)
    else:
        pairs = dispatch.last_kernel() == "dual_shift_linear:avx512_bf16" and x.dtype == torch.bfloat16
        scaled = x.float() * packed[3].float()
        exact = (scaled.bfloat16() if pairs else scaled).double() @ make_exact(*key, rounded_levels=pairs).T
    return y, exact if bias is None else exact + bias.double()


def dense(x, packed, n, bits, group_size, codebook="uniform"):
    return x.double() @ dual_shift_dequantize(*packed, n, bits, group_size, codebook, torch.float32).double().T


def check(problem, dtype, bits, codebook, group_size, generator, activation_bits=None):
    x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
    bias = torch.randn(problem.n, generator=generator).to(dtype) if bits % 2 else None
    y, exact = linear_of((problem.n, problem.k), bits, group_size, codebook, x, bias, activation_bits)
    assert y.dtype == dtype
    try:
        assert_matches(y, exact, problem.k)
    except AssertionError as error:
        case = f"{problem.id} m={problem.m} {dtype} {bits} {codebook} group_size={group_size} {activation_bits}"
        raise AssertionError(f"{case}: {error}") from error


def literal_weight():
    """[17, 3]: row 0 is [-0.5, 1.5, 0.5], row 16 is [0, 24, 0.5], the others are 0."""
    codes = torch.zeros(2, 1, 4, 64, dtype=torch.uint8)
    codes[0, 0, 0, [0, 2, 1]] = torch.tensor([1, 3, 15], dtype=torch.uint8)
    codes[1, 0, 0, [0, 2, 1]] = torch.tensor([7, 8, 9], dtype=torch.uint8)
    scale = torch.zeros(2, 2, 16).bfloat16()
    scale[0, :, 0], scale[1, :, 0] = torch.tensor([[0.5, 2.0], [8.0, 0.25]]).bfloat16()
    zero = torch.zeros(2, 2, 8, dtype=torch.uint8)
    zero[0, :, 0], zero[1, :, 0] = torch.tensor([[2, 14], [7, 1]], dtype=torch.uint8)
    return codes, scale, zero, torch.tensor([1.0, 3.0, 0.25], dtype=torch.bfloat16)


def test_literal(isa):
    x = torch.tensor([[2.0, 4.0, 8.0]])
    for dtype in DTYPES:
        bias = torch.ones(17, dtype=dtype)
        y = ops.dual_shift_linear(x.to(dtype), *literal_weight(), bias, n=17, bits=4, group_size=2)
        assert y.dtype == dtype
        assert y.tolist() == [[10.0] + 15 * [1.0] + [101.0]]


def test_literal_of_8_bit_activations(isa):
    """x * c = [254, -63, 1]: the largest is 127 steps of 2, -31.5 and 0.5 go to even."""
    x = torch.tensor([[254.0, -21.0, 4.0], [0.0, 0.0, 0.0]])
    for dtype in DTYPES:
        y = ops.dual_shift_linear(x.to(dtype), *literal_weight(), n=17, bits=4, group_size=2, activation_bits=8)
        assert y.dtype == dtype
        row_0 = 2 * (127 * -1 * 0.5 + -32 * 1 * 0.5 + 0)
        row_16 = 2 * (0 + -32 * 1 * 8.0 + 0)
        assert y.tolist() == [[row_0] + 15 * [0.0] + [row_16], 17 * [0.0]]


def test_a_compiled_kernel_serves(isa):
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            packed = make_packed(3, 70, bits, 12, codebook)
            x = torch.ones(1, 70, dtype=dtype)
            ops.dual_shift_linear(x, *packed, n=3, bits=bits, group_size=12, codebook=codebook)
            assert dispatch.last_kernel().startswith("dual_shift_linear:")


@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=lambda p: p.id)
def test_matches_reference(isa, poison, generator, problem):
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            check(problem, dtype, bits, codebook, 64, generator)
        check(problem, torch.bfloat16, bits, codebook, 32, generator)


@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=lambda p: p.id)
def test_8_bit_activations_match_reference(isa, poison, generator, problem):
    for bits in BITS:
        for dtype in DTYPES:
            check(problem, dtype, bits, "uniform", 64, generator, activation_bits=8)
        check(problem, torch.bfloat16, bits, "uniform", 32, generator, activation_bits=8)


def test_every_group_size(isa, poison, generator):
    problem = LinearProblem("primes", 3, 37, 257)
    for group_size in GROUP_SIZES:
        for bits, codebook in GRIDS:
            for dtype in (torch.float32, torch.bfloat16):
                check(problem, dtype, bits, codebook, group_size, generator)
                if codebook == "uniform":
                    check(problem, dtype, bits, codebook, group_size, generator, activation_bits=8)


def test_every_number_of_tokens(isa, poison, generator):
    for m in TOKENS:
        for bits, codebook in [(4, "uniform"), (3, "uniform"), (8, "uniform"), (4, "nf4")]:
            for n, k in [(13, 448), (41, 131)]:
                for dtype in (torch.float32, torch.bfloat16):
                    check(LinearProblem("tokens", m, n, k), dtype, bits, codebook, 64, generator)
                    if codebook == "uniform":
                        check(LinearProblem("tokens", m, n, k), dtype, bits, codebook, 64, generator, activation_bits=8)


def test_long_rows_match_the_unrounded_weight(isa, generator):
    """Whatever factors a kernel rounds, long sums stay within the one tolerance of the decoded weight."""
    for bits, codebook in GRIDS:
        packed = make_packed(24, 1500, bits, 64, codebook)
        x = torch.randn(3, 1500, generator=generator).bfloat16()
        y = ops.dual_shift_linear(x, *packed, n=24, bits=bits, group_size=64, codebook=codebook)
        assert_matches(y, dense(x, packed, 24, bits, 64, codebook), 1500)


def test_activations_too_small_to_divide_stay_finite(isa):
    x = torch.full((1, 131), 1e-44)
    y, _ = linear_of((18, 131), 4, 32, "uniform", x, activation_bits=8)
    assert torch.equal(y, torch.zeros_like(y))


def test_8_bit_activations_are_close_to_exact_ones(isa, generator):
    """A step is 1 / 127 of the largest of 512 values, about 5 times their root mean square: 5 / 127 / sqrt(12)."""
    x = torch.randn(9, 512, generator=generator)
    y, _ = linear_of((48, 512), 4, 64, "uniform", x, activation_bits=8)
    exact, _ = linear_of((48, 512), 4, 64, "uniform", x)
    error = (y - exact).norm() / exact.norm()
    assert 0.002 < error < 0.02, error


def test_8_bit_activations_of_every_size(isa, generator):
    """Tokens of very different sizes keep their own factor; a token of zeros gives zeros."""
    x = torch.randn(5, 131, generator=generator) * torch.tensor([[1e-20], [1e-3], [0.0], [1e4], [1e20]])
    y, exact = linear_of((18, 131), 4, 32, "uniform", x, activation_bits=8)
    assert_matches(y, exact, 131)
    assert not y[2].any()


def test_dead_groups_contribute_nothing(isa, generator):
    """Empty groups have scale 1 beside scales of 1e-4: q - z must cancel before anything is summed."""
    weight = torch.zeros(4, 512)
    weight[:, 64:128] = 1e-4 * torch.randn(4, 64, generator=generator)
    column_scale = torch.ones(512).bfloat16()
    x = 100 * torch.randn(2, 512, generator=generator)
    x[:, 64:128] /= 100
    for bits, codebook in GRIDS:
        grid = {"bits": bits, "group_size": 64, "codebook": codebook}
        codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, weight != 0, **grid)
        packed = pack_tensors(codes, scale, zero, column_scale, bits, codebook)
        assert_matches(ops.dual_shift_linear(x, *packed, n=4, **grid), dense(x, packed, 4, bits, 64, codebook), 64)
        empty = pack_tensors(codes[:, :64], scale[:, :1], zero[:, :1], column_scale[:64], bits, codebook)
        assert not ops.dual_shift_linear(x[:, :64], *empty, n=4, **grid).any()
        if codebook == "uniform":
            assert not ops.dual_shift_linear(x[:, :64], *empty, n=4, **grid, activation_bits=8).any()


def test_what_lies_past_n_and_k_does_not_matter(isa, generator):
    """Set margins never reach a result: a kernel that sums them would read other columns' activations."""
    n, k = 19, 45
    for bits, activation_bits in [(4, None), (4, 8), (3, None), (8, 8)]:
        codes, scale, zero, column_scale = (t.clone() for t in make_packed(n, k, bits, 32, "uniform"))
        x = torch.randn(3, k, generator=generator)
        grid = {"n": n, "bits": bits, "group_size": 32, "activation_bits": activation_bits}
        clean = ops.dual_shift_linear(x, codes, scale, zero, column_scale, **grid)
        beyond = torch.full((32, 64), 2**bits - 1, dtype=torch.uint8)
        beyond[:n, :k] = 0
        dirty = codes | ops.dual_shift_pack(beyond, bits)
        scale[1, :, 3:] = float("inf")
        assert torch.equal(ops.dual_shift_linear(x, dirty, scale, zero, column_scale, **grid), clean)


def test_rows_do_not_depend_on_the_batch_or_the_threads(isa, generator):
    packed = make_packed(37, 320, 4, 64, "uniform")
    x = torch.randn(9, 320, generator=generator).bfloat16()
    for activation_bits in (None, 8):
        grid = {"n": 37, "bits": 4, "group_size": 64, "activation_bits": activation_bits}
        together = ops.dual_shift_linear(x, *packed, **grid)
        # One or two tokens of bfloat16 take other arithmetic than more of them do.
        for tokens, parts in ((x, x.split(3)), (x[:2], x[:2].split(1))):
            alone = torch.cat([ops.dual_shift_linear(part, *packed, **grid) for part in parts])
            assert torch.equal(ops.dual_shift_linear(tokens, *packed, **grid), alone)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            assert torch.equal(together, ops.dual_shift_linear(x, *packed, **grid))
        finally:
            torch.set_num_threads(threads)


def test_leading_dimensions_and_strides(isa, generator):
    x = torch.randn(65, 3, 2, generator=generator).permute(2, 1, 0)
    for activation_bits in (None, 8):
        for inputs in (x, x[0, 0], x[0], x[:, 1]):
            y, exact = linear_of((6, 65), 4, 32, "uniform", inputs, activation_bits=activation_bits)
            assert y.shape == (*inputs.shape[:-1], 6)
            assert_matches(y, exact, 65)


def test_gradients(isa, generator):
    for dtype in DTYPES:
        for activation_bits in (None, 8):
            packed = make_packed(6, 65, 4, 32, "uniform")
            x = torch.randn(2, 3, 65, generator=generator).to(dtype).requires_grad_()
            bias = torch.randn(6, generator=generator).to(dtype).requires_grad_()
            grad = torch.randn(2, 3, 6, generator=generator).to(dtype)
            y = ops.dual_shift_linear(x, *packed, bias, n=6, bits=4, group_size=32, activation_bits=activation_bits)
            y.backward(grad)
            weight = dual_shift_dequantize(*packed, 6, 4, 32, "uniform", dtype)
            assert torch.equal(x.grad, (grad.flatten(0, 1) @ weight).reshape(2, 3, 65))
            assert_matches(bias.grad[None], grad.double().sum((0, 1))[None], 6)


def test_values_are_the_same_with_and_without_gradients(isa, generator):
    packed = make_packed(6, 65, 4, 32, "uniform")
    x = torch.randn(3, 65, generator=generator, requires_grad=True)
    y = ops.dual_shift_linear(x, *packed, n=6, bits=4, group_size=32)
    with torch.no_grad():
        plain = ops.dual_shift_linear(x, *packed, n=6, bits=4, group_size=32)
    with torch.inference_mode():
        inference = ops.dual_shift_linear(x, *packed, n=6, bits=4, group_size=32)
    assert y.requires_grad and not plain.requires_grad and inference.is_inference()
    assert torch.equal(y, plain) and torch.equal(y, inference)


def test_opcheck(generator):
    op = torch.ops.prism.dual_shift_linear.default
    cases = [
        (2, 5, 65, "uniform", True, None),
        (2, 5, 65, "uniform", True, 8),
        (0, 3, 64, "nf4", False, None),
        (3, 17, 7, "nf4", True, None),
    ]
    for m, n, k, codebook, with_bias, activation_bits in cases:
        packed = make_packed(n, k, 4, 32, codebook)
        x = torch.randn(m, k, generator=generator, requires_grad=True)
        bias = torch.randn(n, generator=generator, requires_grad=True) if with_bias else None
        torch.library.opcheck(op, (x, *packed, bias, n, 4, 32, codebook, activation_bits))


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_compiles_to_one_graph(generator, activation_bits):
    packed = make_packed(5, 65, 3, 32, "uniform")
    x = torch.randn(2, 65, generator=generator)

    def linear(x, *tensors):
        return ops.dual_shift_linear(x, *tensors, n=5, bits=3, group_size=32, activation_bits=activation_bits)

    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    expected = reference(x.double(), *packed, None, 5, 3, 32, "uniform", activation_bits)
    assert_matches(compiled(x, *packed), expected, 65)


U8 = torch.zeros(1, 1, 4, 64, dtype=torch.uint8)
GOOD = {"x": torch.zeros(1, 8), "codes": U8, "scale": torch.ones(1, 1, 16).bfloat16(), "zero": U8[:, 0, :1, :8],
        "column_scale": torch.ones(8).bfloat16(), "bias": None, "n": 2, "bits": 4, "group_size": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(1, 8).double()}, TypeError, "x must have dtype float32 or float16 or bfloat16, got .*64"),
        ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
        ({"x": torch.zeros(())}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.zeros(1, 9)}, ValueError, r"x must have shape \[1, 8\], got \[1, 9\]"),
        ({"x": torch.zeros(1, 8, device="meta")}, ValueError, "x must be on cpu, got meta"),
        ({"scale": torch.ones(3, 1).bfloat16()}, ValueError, r"scale must have shape \[1, 1, 16\], got \[3, 1\]"),
        ({"zero": torch.zeros(1, 1, 8)}, TypeError, "zero must have dtype uint8, got torch.float32"),
        ({"column_scale": torch.ones(33).bfloat16()}, ValueError, r"codes must have shape \[1, 2, 4, 64\], got"),
        ({"n": 33}, ValueError, r"codes must have shape \[3, 1, 4, 64\], got \[1, 1, 4, 64\]"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \[2\], got \[3\]"),
        ({"bias": torch.zeros(2, 1)}, ValueError, r"bias must have shape \[2\], got \[2, 1\]"),
        ({"bias": torch.zeros(2).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bits": 16}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 16"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1, got 0"),
        ({"codebook": "nf3"}, ValueError, "bits must be 3 for codebook 'nf3', got 4"),
        ({"activation_bits": 4}, ValueError, "activation_bits must be 8 or None, got 4"),
        (
            {"activation_bits": 8, "codebook": "nf4", "zero": U8[:, 0, :1, :0]},
            ValueError,
            "activation_bits must be None unless the codebook is uniform, got 8",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    arguments = {**GOOD, **changes}
    tensors = [arguments.pop(name) for name in ("x", "codes", "scale", "zero", "column_scale", "bias")]
    with pytest.raises(error, match=f"dual_shift_linear: {message}"):
        ops.dual_shift_linear(*tensors, **arguments)


def test_column_scale_scales_columns(isa, generator):
    codes, scale, zero, _ = make_packed(6, 64, 4, 64, "uniform")
    x = torch.randn(3, 64, generator=generator)
    grid = {"n": 6, "bits": 4, "group_size": 64}
    doubled = ops.dual_shift_linear(x, codes, scale, zero, torch.full((64,), 2.0).bfloat16(), **grid)
    plain = ops.dual_shift_linear(x, codes, scale, zero, torch.ones(64).bfloat16(), **grid)
    assert torch.equal(doubled, 2 * plain)


def test_reference_in_float64(generator):
    """The float64 reference, its column scale and its bias agree with a product written by hand."""
    column_scale = make_column_scale(65, generator)
    codes, scale, zero, _ = make_packed(18, 65, 4, 32, "uniform")
    x, bias = torch.randn(3, 65, generator=generator).double(), torch.randn(18, generator=generator).double()
    weight = dual_shift_dequantize(codes, scale, zero, column_scale, 18, 4, 32, "uniform", torch.float64)
    y = reference(x, codes, scale, zero, column_scale, bias, 18, 4, 32, "uniform", None)
    assert y.dtype == torch.float64
    assert torch.allclose(y, x @ weight.T + bias, rtol=1e-12, atol=1e-12)
