"""dual_shift_linear on the device against the float64 reference, over the problems of the op's own tests.

Tensor cores multiply x * column_scale and levels rounded to the dtype of x; the reference takes the same factors.
"""

import pytest
import torch

from dual_shift_cases import GRIDS, make_exact, make_packed
from prism_kernels import dispatch, ops
from prism_kernels.nn import DualShiftLinear
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_unpack import dual_shift_unpack
from prism_kernels.reference.panels import panels_to_rows
from prism_kernels.testing import LINEAR_PROBLEMS, LinearProblem, assert_matches

pytestmark = pytest.mark.gpu

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: Groups of whole blocks, longer than a row, and of parts of a block.
GROUP_SIZES = (64, 32, 4096, 96, 5)
#: Around every tile of tokens that a kernel has.
TOKENS = (1, 2, 7, 8, 9, 15, 16, 17, 24, 63, 64, 65, 130)


def exact_weight(n, k, bits, group_size, codebook, dtype):
    """float64 [n, k] before its column scale, levels rounded to `dtype`."""
    if codebook == "uniform" or dtype == torch.float32:
        return make_exact(n, k, bits, group_size, codebook)
    codes, scale, _, _ = make_packed(n, k, bits, group_size, codebook)
    steps = levels(codebook).to(dtype).double()[dual_shift_unpack(codes, n, k, bits).int()]
    return steps * panels_to_rows(scale, n).double()[:, torch.arange(k) // group_size]


def check(problem, dtype, bits, codebook, group_size, generator, activation_bits=None, device="cuda"):
    n, k = problem.n, problem.k
    x = torch.randn(problem.m, k, generator=generator).to(dtype)
    bias = torch.randn(n, generator=generator).to(dtype) if bits % 2 else None
    packed = make_packed(n, k, bits, group_size, codebook)
    y = ops.dual_shift_linear(
        x.to(device), *(t.to(device) for t in packed), None if bias is None else bias.to(device),
        n=n, bits=bits, group_size=group_size, codebook=codebook, activation_bits=activation_bits,
    )  # fmt: skip
    tensor_cores = dtype != torch.float32 and (group_size % 32 == 0 or group_size >= k)
    if activation_bits is not None:
        whole, token_scale = quantize_activations(x, packed[3])
        expected = token_scale.double() * (whole.double() @ make_exact(n, k, bits, group_size, codebook).T)
    else:
        scaled = x.float() * packed[3].float()
        weight = exact_weight(n, k, bits, group_size, codebook, dtype if tensor_cores else torch.float32)
        expected = (scaled.to(dtype) if tensor_cores else scaled).double() @ weight.T
    assert y.dtype == dtype and y.device.type == "cuda"
    try:
        assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), k)
    except AssertionError as error:
        case = f"{problem.id} m={problem.m} {dtype} {bits} {codebook} group_size={group_size} {activation_bits}"
        raise AssertionError(f"{case}: {error}") from error


def on_device(n, k, device, dtype=torch.bfloat16):
    """A function of x: the 4-bit linear of the shared weight [n, k]."""
    packed = tuple(t.to(device) for t in make_packed(n, k, 4, 64, "uniform"))
    bias = torch.linspace(-1, 1, n, device=device, dtype=dtype)

    def linear(x, activation_bits=None):
        return ops.dual_shift_linear(x, *packed, bias, n=n, bits=4, group_size=64, activation_bits=activation_bits)

    return linear


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("dual_shift_linear", "cuda")
    assert dispatch.explain("dual_shift_linear")[-1].backend == "CUDA C++"


def test_sanitized_odd_shapes(generator, device):
    for m, group_size, dtype in ((3, 64, torch.bfloat16), (18, 32, torch.float16), (2, 5, torch.float32)):
        check(LinearProblem("odd", m, 33, 203), dtype, 4, "uniform", group_size, generator, device=device)
    check(LinearProblem("odd", 18, 33, 1100), torch.bfloat16, 5, "uniform", 64, generator, 8, device=device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_float64(poison, generator, dtype):
    for problem in LINEAR_PROBLEMS:
        for bits, codebook in GRIDS:
            for group_size in GROUP_SIZES:
                check(problem, dtype, bits, codebook, group_size, generator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounds_activations_to_8_bits(poison, generator, dtype):
    for problem in LINEAR_PROBLEMS:
        for bits in (2, 4, 8):
            for group_size in GROUP_SIZES:
                check(problem, dtype, bits, "uniform", group_size, generator, 8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_of_tokens(poison, generator, dtype):
    for m in TOKENS:
        for bits, codebook in GRIDS:
            check(LinearProblem("tokens", m, 300, 1096), dtype, bits, codebook, 64, generator)


def test_layer_of_a_model(generator):
    for m in (1, 8, 16, 64, 100):
        check(LinearProblem("layer", m, 4096, 4096), torch.bfloat16, 4, "uniform", 64, generator)


@pytest.mark.parametrize("activation_bits", [None, 8])
@pytest.mark.parametrize("m", [1, 16, 40])
def test_captures_compiles_and_repeats(generator, device, captured, m, activation_bits):
    linear = on_device(300, 2056, device)
    first, second = torch.randn(2, m, 2056, generator=generator).bfloat16().to(device)
    expected = linear(second, activation_bits)
    assert torch.equal(linear(second, activation_bits), expected)
    compiled = torch.compile(linear, fullgraph=True)
    assert torch.equal(compiled(second, activation_bits), expected)
    assert torch.equal(captured(lambda x: linear(x, activation_bits), first, second), expected)


def test_views_that_kernels_cannot_read_as_vectors(generator, device):
    """x at an odd address is copied; codes there are refused."""
    linear = on_device(33, 256, device)
    x = torch.randn(5 * 256 + 1, generator=generator).bfloat16().to(device)
    assert torch.equal(linear(x[1:].view(5, 256)), linear(x[1:].clone().view(5, 256)))
    packed = [t.to(device) for t in make_packed(33, 256, 4, 64, "uniform")]
    odd = torch.empty(packed[0].numel() + 1, dtype=torch.uint8, device=device)[1:].view_as(packed[0])
    with pytest.raises(RuntimeError, match="dual_shift_linear: codes must be aligned to 16 bytes"):
        ops.dual_shift_linear(x[:256].view(1, 256), odd, *packed[1:], n=33, bits=4, group_size=64)


def test_module_on_both_sides_of_the_crossover(generator, device):
    module = DualShiftLinear.from_linear(torch.nn.Linear(192, 80, dtype=torch.bfloat16), bits=4, group_size=64).to(
        device
    )
    for m in (1, 16, dispatch.crossover("dual_shift_linear", "cuda") + 1):
        x = torch.randn(m, 192, generator=generator).bfloat16().to(device)
        expected = torch.nn.functional.linear(x.double(), module.to_dense(torch.float32).double(), module.bias.double())
        assert float((module(x).double() - expected).detach().abs().max()) < 0.05 * float(expected.detach().abs().max())


def test_gradients(generator, device):
    linear = on_device(33, 200, device, torch.float32)
    x = torch.randn(5, 200, generator=generator).to(device).requires_grad_()
    linear(x).square().sum().backward()
    weight = ops.dual_shift_dequantize(
        *(t.to(device) for t in make_packed(33, 200, 4, 64, "uniform")),
        n=33,
        bits=4,
        group_size=64,
        dtype=torch.float32,
    )
    assert torch.allclose(x.grad, 2 * linear(x).detach() @ weight, rtol=1e-4, atol=1e-4)
