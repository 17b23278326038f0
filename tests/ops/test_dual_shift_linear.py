"""dual_shift_linear: literal, reference, gradient, contract and poison tests under every instruction set."""

import pytest
import torch

from dual_shift_cases import GRIDS, GROUP_SIZES, make_exact, make_packed
from prism_kernels import dispatch, ops
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize
from prism_kernels.testing import LINEAR_PROBLEMS, LinearProblem, assert_matches

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def linear_of(shape, bits, group_size, codebook, x, bias=None):
    """(y, the float64 reference) of the shared weight of this shape [n, k] and grid.

    Where AVX512-BF16 serves, the reference takes the same bfloat16 factors as the kernel: x * column_scale and levels.
    """
    key = (*shape, bits, group_size, codebook)
    packed = make_packed(*key)
    y = ops.dual_shift_linear(x, *packed, bias, bits=bits, group_size=group_size, codebook=codebook)
    pairs = dispatch.last_kernel() == "dual_shift_linear:avx512_bf16"
    scaled = x.float() * packed[3].float()
    exact = (scaled.bfloat16() if pairs else scaled).double() @ make_exact(*key, rounded_levels=pairs).T
    return y, exact if bias is None else exact + bias.double()


def dense(x, packed, bits, group_size, codebook="uniform"):
    return x.double() @ dual_shift_dequantize(*packed, bits, group_size, codebook, torch.float32).double().T


def check(problem, dtype, bits, codebook, group_size, generator):
    x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
    bias = torch.randn(problem.n, generator=generator).to(dtype) if bits % 2 else None
    y, exact = linear_of((problem.n, problem.k), bits, group_size, codebook, x, bias)
    assert y.dtype == dtype
    try:
        assert_matches(y, exact, problem.k)
    except AssertionError as error:
        raise AssertionError(f"{problem.id} {dtype} {bits} {codebook} group_size={group_size}: {error}") from error


def test_literal(isa):
    codes = torch.tensor([[0x31, 0x0F]], dtype=torch.uint8)
    scale = torch.tensor([[0.5, 2.0]], dtype=torch.bfloat16)
    zero = torch.tensor([[0xE2]], dtype=torch.uint8)
    column_scale = torch.tensor([1.0, 3.0, 0.25], dtype=torch.bfloat16)
    x = torch.tensor([[2.0, 4.0, 8.0]])  # the weight is [-0.5, 1.5, 0.5]
    for dtype in DTYPES:
        y = ops.dual_shift_linear(
            x.to(dtype), codes, scale, zero, column_scale, torch.ones(1, dtype=dtype), bits=4, group_size=2
        )
        assert y.tolist() == [[10.0]] and y.dtype == dtype
        isa.assert_served("dual_shift_linear", best="generic")  # a group of 2 columns is less than a lane


def test_each_instruction_set_serves(isa):
    for group_size, bits, served in [(64, 4, True), (12, 4, False), (12, 3, True), (5, 8, False), (99, 4, True)]:
        for dtype in DTYPES:
            packed = make_packed(3, 70, bits, group_size, "uniform")
            ops.dual_shift_linear(torch.ones(1, 70, dtype=dtype), *packed, bits=bits, group_size=group_size)
            best = "generic" if not served else "avx512_bf16" if dtype == torch.bfloat16 else "avx512"
            isa.assert_served("dual_shift_linear", best=best)


@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=lambda p: p.id)
def test_matches_reference(isa, poison, generator, problem):
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            check(problem, dtype, bits, codebook, 64, generator)
        check(problem, torch.bfloat16, bits, codebook, 32, generator)


def test_every_group_size(isa, poison, generator):
    problem = LinearProblem("two_lanes_of_rows", 3, 6, 257)
    for group_size in GROUP_SIZES:
        for bits, codebook in GRIDS:
            check(problem, torch.float32, bits, codebook, group_size, generator)
            check(problem, torch.bfloat16, bits, codebook, group_size, generator)


def test_long_rows_match_the_unrounded_weight(isa, generator):
    """Whatever factors a kernel rounds, long sums stay within the one tolerance of the decoded weight."""
    for bits, codebook in GRIDS:
        packed = make_packed(24, 1500, bits, 64, codebook)
        x = torch.randn(3, 1500, generator=generator).bfloat16()
        y = ops.dual_shift_linear(x, *packed, bits=bits, group_size=64, codebook=codebook)
        assert_matches(y, dense(x, packed, bits, 64, codebook), 1500)


def test_dead_groups_contribute_nothing(isa, generator):
    """Empty groups have scale 1 beside scales of 1e-4: q - z must cancel before anything is summed."""
    weight = torch.zeros(4, 512)
    weight[:, 64:128] = 1e-4 * torch.randn(4, 64, generator=generator)
    column_scale = torch.ones(512).bfloat16()
    for bits, codebook in GRIDS:
        grid = {"bits": bits, "group_size": 64, "codebook": codebook}
        codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, weight != 0, **grid)
        packed = (ops.pack_codes(codes, bits), scale, ops.pack_codes(zero, bits), column_scale)
        x = 100 * torch.randn(2, 512, generator=generator)
        x[:, 64:128] /= 100
        assert_matches(ops.dual_shift_linear(x, *packed, **grid), dense(x, packed, bits, 64, codebook), 64)
        empty = (packed[0][:, : 8 * bits], scale[:, :1], ops.pack_codes(zero[:, :1], bits), column_scale[:64])
        assert bool((ops.dual_shift_linear(x[:, :64], *empty, **grid) == 0).all())


def test_every_small_m(isa, poison, generator):
    for dtype in (torch.float32, torch.bfloat16):
        for m in range(1, 18):
            for bits in (4, 8, 3):
                x = torch.randn(m, 448, generator=generator).to(dtype)
                assert_matches(*linear_of((13, 448), bits, 64, "uniform", x), 448)


def test_rows_do_not_depend_on_the_batch_or_the_threads(isa, generator):
    packed = make_packed(37, 320, 4, 64, "uniform")
    x = torch.randn(9, 320, generator=generator).bfloat16()
    together = ops.dual_shift_linear(x, *packed, bits=4, group_size=64)
    alone = torch.cat([ops.dual_shift_linear(row[None], *packed, bits=4, group_size=64) for row in x])
    assert torch.equal(together, alone)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(together, ops.dual_shift_linear(x, *packed, bits=4, group_size=64))
    finally:
        torch.set_num_threads(threads)


def test_leading_dimensions_and_strides(isa, generator):
    x = torch.randn(65, 3, 2, generator=generator).permute(2, 1, 0)
    y, exact = linear_of((6, 65), 4, 32, "uniform", x)
    assert y.shape == (2, 3, 6)
    assert_matches(y, exact, 65)
    vector, exact = linear_of((6, 65), 4, 32, "uniform", x[0, 0])
    assert_matches(vector, exact, 65)


def test_gradients(isa, generator):
    for dtype in DTYPES:
        packed = make_packed(6, 65, 4, 32, "uniform")
        x = torch.randn(2, 3, 65, generator=generator).to(dtype).requires_grad_()
        bias = torch.randn(6, generator=generator).to(dtype).requires_grad_()
        grad = torch.randn(2, 3, 6, generator=generator).to(dtype)
        ops.dual_shift_linear(x, *packed, bias, bits=4, group_size=32).backward(grad)
        weight = dual_shift_dequantize(*packed, 4, 32, "uniform", dtype)
        assert torch.equal(x.grad, (grad.flatten(0, 1) @ weight).reshape(2, 3, 65))
        assert_matches(bias.grad[None], grad.double().sum((0, 1))[None], 6)


def test_opcheck(generator):
    op = torch.ops.prism.dual_shift_linear.default
    for m, n, k, codebook, with_bias in [(2, 5, 65, "uniform", True), (0, 3, 64, "nf4", False), (3, 4, 7, "nf4", True)]:
        packed = make_packed(n, k, 4, 32, codebook)
        x = torch.randn(m, k, generator=generator, requires_grad=True)
        bias = torch.randn(n, generator=generator, requires_grad=True) if with_bias else None
        torch.library.opcheck(op, (x, *packed, bias, 4, 32, codebook))


def test_compiles_to_one_graph(generator):
    packed = make_packed(5, 65, 3, 32, "uniform")
    x = torch.randn(2, 65, generator=generator)

    def linear(x, *tensors):
        return ops.dual_shift_linear(x, *tensors, bits=3, group_size=32)

    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    assert_matches(compiled(x, *packed), dense(x, packed, 3, 32), 65)


GOOD = {"x": torch.zeros(1, 8), "codes": torch.zeros(2, 4, dtype=torch.uint8), "scale": torch.ones(2, 1).bfloat16(),
        "zero": torch.zeros(2, 1, dtype=torch.uint8), "column_scale": torch.ones(8).bfloat16(), "bias": None,
        "bits": 4, "group_size": 64, "codebook": "uniform"}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(1, 8).double()}, TypeError, "x must have dtype float32 or float16 or bfloat16, got .*64"),
        ({"x": torch.zeros(())}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.zeros(1, 9)}, ValueError, r"codes must have shape \[\*, 5\], got \[2, 4\]"),
        ({"scale": torch.ones(3, 1).bfloat16()}, ValueError, r"scale must have shape \[2, 1\], got \[3, 1\]"),
        ({"zero": torch.zeros(2, 1)}, TypeError, "zero must have dtype uint8, got torch.float32"),
        ({"column_scale": torch.ones(7).bfloat16()}, ValueError, r"column_scale must have shape \[8\], got \[7\]"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \[2\], got \[3\]"),
        ({"bias": torch.zeros(2).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bits": 16}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 16"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1, got 0"),
        ({"codebook": "nf3"}, ValueError, "bits must be 3 for codebook 'nf3', got 4"),
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
    doubled = ops.dual_shift_linear(x, codes, scale, zero, torch.full((64,), 2.0).bfloat16(), bits=4, group_size=64)
    plain = ops.dual_shift_linear(x, codes, scale, zero, torch.ones(64).bfloat16(), bits=4, group_size=64)
    assert torch.equal(doubled, 2 * plain)
