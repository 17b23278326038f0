"""What tests on a GPU share: the reason why they skip, the device, and calls from a captured CUDA graph."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def captured(device) -> Callable[..., torch.Tensor]:
    """captured(function, x, other): function(x) captured into a CUDA graph, then replayed with the values of `other` in
    x; what it returned. A host synchronization or an allocation outside torch fails the capture."""

    def run(function, x, other):
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            function(x)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = function(x)
        x.copy_(other)
        graph.replay()
        return y.clone()

    return run
