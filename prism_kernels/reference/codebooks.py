"""Code widths and the levels of the non-uniform codebooks."""

import torch

#: Code widths of every packed format.
BITS = (2, 3, 4, 5, 6, 8)

#: Codebook name -> its levels, ascending, 0.0 among them. "uniform" has none: its codes are steps from a zero point.
#: nf4: the NormalFloat levels of QLoRA (Dettmers et al. 2023, appendix E), quantiles of a normal distribution between
#: the probabilities d and 1 - d, d = (1/32 + 1/30) / 2, half of them on each side of 0. nf3: the same with 8 levels, so
#: d = (1/16 + 1/14) / 2. csrc/common/codebooks.h holds the same numbers.
LEVELS: dict[str, tuple[float, ...]] = {
    "uniform": (),
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    "nf3": (
        -1.0, -0.5350227355957031, -0.24693143367767334, 0.0, 0.1833374798297882, 0.38199394941329956,
        0.6229857206344604, 1.0,
    ),
}  # fmt: skip


def levels(codebook: str, device: torch.device | None = None) -> torch.Tensor:
    """float32 levels of a non-uniform codebook."""
    return torch.tensor(LEVELS[codebook], dtype=torch.float32, device=device)


def nearest_level(values: torch.Tensor, codebook: str) -> torch.Tensor:
    """values float32 -> codes u8: the nearest level; exactly between two, the lower one."""
    table = levels(codebook, values.device)
    return torch.bucketize(values, (table[:-1] + table[1:]) / 2).to(torch.uint8)
