"""Small matrices full of what breaks methods: ties, rows and columns of zeros, inputs that never fire."""

import random
from fractions import Fraction

import torch

from prism_llm.calibration import InputStatistics


def counted(total, share):
    """How many of `total` a share is, from its decimals, rounded down."""
    return int(total * Fraction(repr(share)))


def small_matrices(seed, count=200, *, tokens=17, most_rows=9, most_columns=25):
    """(weight float32 [n, k], mask bool [n, k], statistics of its inputs with X^T X, a random generator)."""
    for case in range(count):
        draw = random.Random(f"{seed}-{case}")
        generator = torch.Generator().manual_seed(draw.randrange(2**31))
        n, k = draw.randint(1, most_rows), draw.randint(1, most_columns)
        weight, x = torch.randn(n, k, generator=generator), torch.randn(tokens, k, generator=generator)
        mask = torch.rand(n, k, generator=generator) < draw.choice([0.3, 0.5, 0.8])
        if draw.random() < 0.4:
            weight = (weight * 2).round() / 2  # many ties and zeros
        if draw.random() < 0.3:
            weight[draw.randrange(n)] = 0
        if draw.random() < 0.3:
            weight[:, draw.randrange(k)] = 0
        if draw.random() < 0.3:
            mask[draw.randrange(n)] = False
        if draw.random() < 0.3:
            mask[:, draw.randrange(k)] = False
        if draw.random() < 0.3:
            mask[draw.randrange(n)] = True
        if draw.random() < 0.3:
            x[:, draw.randrange(k)] = 0
        if draw.random() < 0.3:
            x[:, draw.randrange(k)] = x[:, draw.randrange(k)]  # two inputs that are one
        statistics = InputStatistics(k, hessian=True)
        statistics.add(x)
        yield weight, mask, statistics, draw
