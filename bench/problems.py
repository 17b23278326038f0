"""What is measured: the shapes [n, k] of real weights, the numbers of tokens m, and the random weights themselves."""

from dataclasses import dataclass

import torch

#: Llama-3.1-8B: MLP up/gate, MLP down, attention q/o.
SHAPES = {"mlp_up": (14336, 4096), "mlp_down": (4096, 14336), "attention": (4096, 4096)}
QUICK_SHAPES = {"attention": (4096, 4096)}
TOKENS = (1, 4, 16, 64, 256)
QUICK_TOKENS = (1, 16)
GPU_TOKENS = (1, 4, 16, 64, 256, 2048, 4096)
SPARSITY = 0.5
GROUP_SIZE = 64
ITERATIONS = 16


@dataclass(frozen=True)
class Request:
    """What the command line asks a benchmark file for."""

    shapes: dict[str, tuple[int, int]]
    tokens: tuple[int, ...]
    quick: bool = False


def shape_name(n: int, k: int) -> str:
    """The name of [n, k] in SHAPES, or "n x k" for another shape."""
    return next((name for name, shape in SHAPES.items() if shape == (n, k)), f"{n}x{k}")


def random_weight(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    """bfloat16 [n, k], normal with the spread of a trained weight."""
    return torch.randn(n, k, generator=generator).mul_(0.02).bfloat16()


def random_mask(n: int, k: int, generator: torch.Generator, sparsity: float = SPARSITY) -> torch.Tensor:
    """bool [n, k], True = kept, independent draws: rows and tiles of unequal length, as real masks have."""
    return torch.rand(n, k, generator=generator) >= sparsity
