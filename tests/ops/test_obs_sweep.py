"""obs_sweep: literal, bit equality with the reference, a naive oracle and contract, under every instruction set."""

import functools
import itertools

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.grid import find_grid, round_to_grid
from prism_kernels.reference.obs_sweep import obs_sweep as reference

SHAPES = [(1, 1), (3, 7), (2, 63), (17, 64), (5, 65), (67, 128), (0, 16), (3, 0), (130, 33), (9, 200)]
NAMES = ("compensated", "error", "mask", "codes", "scale", "zero")


def problem(shape, generator, dtype=torch.float32):
    """Weights and the upper Cholesky factor of the inverse of a damped Hessian of correlated inputs."""
    n, b = shape
    inputs = torch.randn(2 * b + 3, b, generator=generator, dtype=torch.float64)
    inputs += 0.5 * inputs[:, torch.randperm(b, generator=generator)]
    hessian = inputs.T @ inputs / len(inputs) + 0.01 * torch.eye(b, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).contiguous()
    return torch.randn(n, b, generator=generator).to(dtype), factor.to(dtype), hessian


def case(*arguments):
    """All arguments, and what the reference gives for them."""
    options = [None, 0, 0, None, None, None, 0, 0]
    arguments = (*arguments, *options[len(arguments) - 2 :])
    return arguments, reference(*arguments)


def assert_same(arguments, expected):
    """All six outputs of the op equal the reference's, bit for bit."""
    actual = ops.obs_sweep(*arguments)
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert a.dtype == e.dtype, name
        assert torch.equal(a, e), (name, describe(arguments))


def describe(arguments):
    return [list(a.shape) if isinstance(a, torch.Tensor) else a for a in arguments]


def test_literal(isa):
    factor = torch.tensor([[2.0, 1.0, -1.0], [9.0, 1.0, 0.5], [9.0, 9.0, 4.0]])  # below the diagonal: never read
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.25, 8.0]])
    mask = torch.tensor([[False, True, False], [True, False, True]])
    compensated, error, kept, *rest = ops.obs_sweep(weight, factor, mask)
    assert torch.equal(compensated, torch.tensor([[0.0, 1.5, 0.0], [4.0, 0.0, 7.875]]))
    assert torch.equal(error, torch.tensor([[0.5, 0.0, 0.875], [0.0, 0.25, 0.0]]))
    assert torch.equal(kept, mask)
    assert [t.shape for t in rest] == [(2, 0)] * 3
    isa.assert_served("obs_sweep", best="avx512")


@functools.cache
def fixed_mask_cases():
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape in SHAPES:
        weight, factor, _ = problem(shape, generator)
        cases += [case(weight, factor, torch.rand(shape, generator=generator) < d) for d in (0.0, 0.3, 0.5, 1.0)]
        cases.append(case(weight, factor))
    return cases


def test_fixed_mask_and_no_mask(isa, poison):
    for arguments, expected in fixed_mask_cases():
        assert_same(arguments, expected)


@functools.cache
def adaptive_cases():
    generator = torch.Generator().manual_seed(2)
    cases = []
    for shape in SHAPES:
        weight, factor, _ = problem(shape, generator)
        weight[: len(weight) // 2] = weight[: len(weight) // 2].round()  # ties
        for n_keep, m in ((2, 4), (1, 4), (4, 8), (16, 32), (0, 4), (4, 4), (3, 5), (1, 1), (7, 300)):
            cases.append(case(weight, factor, None, n_keep, m))
    return cases


def test_adaptive_n_m(isa, poison):
    for arguments, expected in adaptive_cases():
        assert_same(arguments, expected)
        (n, b), (n_keep, m) = arguments[0].shape, arguments[3:5]
        groups = expected[2][:, : b - b % m].reshape(n, b // m, m)
        assert bool((groups.sum(-1) == n_keep).all())


def test_first_choice_is_that_of_nm_mask(isa, generator):
    weight, factor, _ = problem((40, 4), generator)
    _, _, mask, *_ = ops.obs_sweep(weight, factor, None, 2, 4)
    assert torch.equal(mask, ops.nm_mask(weight.square() / factor.diagonal().square(), 2, 4))


@functools.cache
def rounding_cases():
    """Found grids, then the same grids given for other weights, over all kinds of masks and odd group sizes."""
    generator = torch.Generator().manual_seed(3)
    cases = []
    choices = itertools.cycle([("fixed", 0, 0), (None, 0, 0), (None, 2, 4), (None, 3, 5)])
    for n, b in SHAPES:
        weight, factor, _ = problem((n, b), generator)
        mask = torch.rand(n, b, generator=generator) < 0.5
        mask[: n // 3, : b // 2] = False  # empty groups
        column_scale = (1 + torch.rand(b, generator=generator)).bfloat16()
        for bits, group_size in ((4, 64), (3, 16), (2, 5), (5, 1), (6, 33), (8, 512)):
            for _ in range(3):
                kind, n_keep, m = next(choices)
                choice = (mask if kind else None, n_keep, m)
                column = column_scale if len(cases) % 5 else None
                cases.append(case(weight, factor, *choice, column, None, None, bits, group_size))
                grids = cases[-1][1][4:]
                cases.append(case(weight.flip(0), factor, *choice, column, *grids, bits, group_size))
    return cases


def test_rounding(isa, poison):
    for arguments, expected in rounding_cases():
        assert_same(arguments, expected)


def test_rounded_values_decode_from_their_codes():
    for arguments, expected in rounding_cases():
        assert_decodes(expected, arguments[5], *arguments[8:])


def assert_decodes(outputs, column_scale, bits, group_size):
    """Kept weights are exactly (q - z) * s * c and pruned ones exactly 0, by their codes alone."""
    compensated, _, mask, codes, scale, zero = outputs
    b = compensated.shape[1]
    steps, zeros = (t.float().repeat_interleave(group_size, 1)[:, :b] for t in (scale, zero))
    column = torch.ones(b) if column_scale is None else column_scale.float()
    assert torch.equal(compensated, (codes.float() - zeros) * steps * column)
    assert bool((compensated[~mask] == 0).all())
    assert int(codes.max() if codes.numel() else 0) < 2**bits


@functools.cache
def wide_cases():
    weight, factor, _ = problem((70, 515), torch.Generator().manual_seed(4))
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    fixed = case(weight, factor, mask, 0, 0, None, None, None, 4, 128)
    return [fixed, case(weight, factor, None, 2, 4, None, None, None, 3, 100)]


def test_wide_block(isa):
    for arguments, expected in wide_cases():
        assert_same(arguments, expected)


def test_extreme_weights(isa):
    """Values whose grids leave the range of bfloat16, or whose squares underflow, follow the reference too."""
    generator = torch.Generator().manual_seed(6)
    for magnitude in (1e38, 1e30, 1e-25, 1e-38, 1e-42):
        weight, _, _ = problem((20, 24), generator)
        arguments = ((weight * magnitude).clamp(-3e38, 3e38), torch.eye(24), None, 2, 4, None, None, None, 4, 7)
        assert_same(*case(*arguments))


def test_without_correlation_it_is_plain_rounding(isa, generator):
    weight = torch.randn(33, 96, generator=generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.5
    outputs = ops.obs_sweep(weight, torch.eye(96), mask, 0, 0, None, None, None, 4, 32)
    groups, kept = weight.reshape(33, 3, 32), mask.reshape(33, 3, 32)
    scale, zero = find_grid(groups, kept, 4)
    codes = torch.where(kept, round_to_grid(groups, scale, zero, 4), zero[..., None])
    assert torch.equal(outputs[4], scale)
    assert torch.equal(outputs[5], zero)
    assert torch.equal(outputs[3], codes.reshape(33, 96))


def naive_obs(weight, hessian, mask):
    """Removes the pruned weights of each row one after another, each by an OBS step among the columns that are not yet
    final, whose inverse Hessian is computed anew."""
    compensated = weight.clone()
    for row, kept in zip(compensated, mask, strict=True):
        for j in range(len(row)):
            if not kept[j]:
                inverse = torch.linalg.inv(hessian[j:, j:])
                row[j:] -= row[j] / inverse[0, 0] * inverse[0]
                row[j] = 0.0
    return compensated


def test_naive_oracle(isa, generator):
    for shape in ((4, 1), (5, 9), (3, 24)):
        weight, factor, hessian = problem(shape, generator, torch.float64)
        mask = torch.rand(shape, generator=generator) < 0.5
        expected = naive_obs(weight, hessian, mask)
        exact = reference(weight, factor, mask, 0, 0, None, None, None, 0, 0)[0]
        torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-9)
        single = ops.obs_sweep(weight.float(), factor.float(), mask)[0]
        torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


def test_error_carries_into_the_columns_after_the_block(isa, generator):
    """Two blocks with the caller's update between them give what one block of all columns gives."""
    weight, factor, _ = problem((20, 48), generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.5
    whole = ops.obs_sweep(weight, factor, mask)[0]
    left, error, *_ = ops.obs_sweep(weight[:, :32], factor[:32, :32], mask[:, :32])
    right = weight[:, 32:] - error @ factor[:32, 32:]
    right, *_ = ops.obs_sweep(right, factor[32:, 32:], mask[:, 32:])
    torch.testing.assert_close(torch.cat([left, right], 1), whole, rtol=1e-4, atol=1e-5)


def test_compensation_lowers_the_output_error(isa, generator):
    weight, factor, hessian = problem((64, 96), generator)
    mask = ops.nm_mask(weight.abs(), 2, 4)

    def loss(result):
        gap = (result - weight).double()
        return float(((gap @ hessian) * gap).sum())

    assert loss(ops.obs_sweep(weight, factor, mask)[0]) < 0.9 * loss(weight * mask)
    assert loss(ops.obs_sweep(weight, factor, None, 2, 4)[0]) < loss(ops.obs_sweep(weight, factor, mask)[0])


def test_inputs_stay_and_outputs_are_fresh(isa, generator):
    weight, factor, _ = problem((7, 20), generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.5
    grids = ops.obs_sweep(weight, factor, mask, 0, 0, None, None, None, 4, 8)[4:]
    inputs = (weight, factor, mask, *grids)
    before = [t.clone() for t in inputs]
    outputs = ops.obs_sweep(weight, factor, mask, 0, 0, None, *grids, 4, 8)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
    assert not {t.data_ptr() for t in inputs} & {t.data_ptr() for t in outputs}


def test_strides(isa, generator):
    weight, factor, _ = problem((20, 24), generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.5
    expected = ops.obs_sweep(weight, factor, mask)
    actual = ops.obs_sweep(weight.T.contiguous().T, factor.T.contiguous().T, mask.T.contiguous().T)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_does_not_depend_on_the_number_of_threads(isa, generator):
    weight, factor, _ = problem((301, 96), generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = ops.obs_sweep(weight, factor, None, 2, 4, None, None, None, 4, 32)
        torch.set_num_threads(2)
        actual = ops.obs_sweep(weight, factor, None, 2, 4, None, None, None, 4, 32)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_opcheck(generator):
    weight, factor, _ = problem((3, 10), generator)
    mask, column = weight > 0, torch.ones(10).bfloat16()
    scale, zero = torch.ones(3, 2).bfloat16(), torch.ones(3, 2, dtype=torch.uint8)
    for options in (
        (mask, 0, 0, None, None, None, 0, 0),
        (None, 2, 4, column, None, None, 4, 5),
        (None, 0, 0, None, scale, zero, 3, 7),
    ):
        torch.library.opcheck(torch.ops.prism.obs_sweep.default, (weight, factor, *options))


def test_compiles_to_one_graph(generator):
    weight, factor, _ = problem((3, 10), generator)
    arguments = (weight, factor, weight > 0, 0, 0, None, None, None, 4, 5)
    compiled = torch.compile(ops.obs_sweep, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, e) for a, e in zip(compiled(*arguments), ops.obs_sweep(*arguments), strict=True))


W, U, S, Z = torch.zeros(2, 4), torch.eye(4), torch.ones(2, 2).bfloat16(), torch.zeros(2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((W[0], U), ValueError, r"obs_sweep: weight must have shape \[\*, \*\], got \[4\]"),
        ((W.half(), U), TypeError, "obs_sweep: weight must have dtype float32, got torch.float16"),
        ((W, U[:3]), ValueError, r"obs_sweep: factor must have shape \[4, 4\], got \[3, 4\]"),
        ((W, U, W), TypeError, "obs_sweep: mask must have dtype bool, got torch.float32"),
        ((W, U, None, 0, -1), ValueError, "obs_sweep: m must be at least 0, got -1"),
        ((W, U, None, 3, 2), ValueError, "obs_sweep: n_keep must be between 0 and m=2, got 3"),
        ((W, U, None, 0, 0, None, None, None, 7, 4), ValueError, "bits must be one of 0, 2, 3, 4, 5, 6, 8, got 7"),
        ((W, U, None, 0, 0, None, None, None, 4, 0), ValueError, "group_size must be at least 1 where bits > 0, got 0"),
        ((W, U, None, 0, 0, S[0], None, None, 4, 2), ValueError, r"column_scale must have shape \[4\], got \[2\]"),
        ((W, U, None, 0, 0, None, S, None, 4, 2), ValueError, "scale must come with zero, got only one of them"),
        ((W, U, None, 0, 0, None, S, Z, 0, 2), ValueError, r"scale must be None where bits = 0, got \[2, 2\]"),
        ((W, U, None, 0, 0, None, S, Z, 4, 4), ValueError, r"scale must have shape \[2, 1\], got \[2, 2\]"),
        ((W, U, None, 0, 0, None, S, S, 4, 2), TypeError, "zero must have dtype uint8, got torch.bfloat16"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.obs_sweep(*arguments)
