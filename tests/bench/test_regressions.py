"""pytest-benchmark entries: small, to be compared with an earlier run (`make test-bench`, `--benchmark-compare`).

They say that something became slower, not how fast it is; that is what `make bench` is for. Each result is checked.
"""

import pytest
import torch
import torch.nn.functional as F

from prism_kernels import nn, ops
from prism_kernels.testing import assert_matches

N, K = 2048, 2048
INT4 = {"bits": 4, "group_size": 64}
LINEARS = {
    "dual_shift": (nn.DualShiftLinear, False, INT4),
    "bitmap": (nn.BitmapLinear, True, {}),
    "bitmap_dual_shift": (nn.BitmapDualShiftLinear, True, INT4),
}

pytestmark = pytest.mark.benchmark(min_rounds=10, max_time=0.5, warmup=True)


@pytest.fixture(scope="module")
def weight():
    return torch.randn(N, K, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()


@pytest.fixture(scope="module")
def mask():
    return torch.rand(N, K, generator=torch.Generator().manual_seed(1)) < 0.5


def tokens(m):
    return torch.randn(m, K, generator=torch.Generator().manual_seed(m)).bfloat16()


@pytest.mark.parametrize("m", [1, 16])
@pytest.mark.parametrize("name", ["dense", *LINEARS])
def test_linear(benchmark, weight, mask, name, m):
    benchmark.group = f"linear {N}x{K}, m = {m}"
    linear = torch.nn.Linear(K, N, bias=False)
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    x = tokens(m)
    if name == "dense":
        assert benchmark(F.linear, x, weight).shape == (m, N)
        return
    kind, sparse, options = LINEARS[name]
    module = kind.from_linear(linear, mask if sparse else None, **options)
    y = benchmark(module, x)
    assert_matches(y, x.double() @ module.to_dense(torch.float32).double().T, K)


@pytest.mark.parametrize("variant", ["sinq", "prism"])
def test_sinkhorn(benchmark, weight, mask, variant):
    benchmark.group = f"sinkhorn {N}x{K}, 16 iterations"
    column, row = benchmark(ops.sinkhorn, weight.float(), mask, variant=variant, iterations=16)
    assert bool((column > 0).all()) and bool((row > 0).all())


def test_masks(benchmark, weight):
    benchmark.group = f"masks {N}x{K}"
    scores = weight.float().abs()
    kept = benchmark(ops.nm_mask, scores, 2, 4)
    assert int(kept.sum()) == N * K // 2


def test_obs_sweep(benchmark, weight, mask):
    benchmark.group = f"obs_sweep {N}x128"
    block, factor = weight[:, :128].float().contiguous(), torch.eye(128) + 0.1 * torch.ones(128, 128).triu(1)
    swept = benchmark(ops.obs_sweep, block, factor, mask[:, :128].contiguous())[0]
    assert not swept[~mask[:, :128]].any()
