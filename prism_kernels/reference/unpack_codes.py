"""A little-endian bit stream per row back to codes."""

import torch


def unpack_codes(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """packed u8 [n, ceil(count * bits / 8)] -> codes u8 [n, count]; the inverse of `pack_codes`."""
    stream = (packed.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    stream = stream.flatten(1)[:, : count * bits].reshape(packed.shape[0], count, bits)
    place = 2 ** torch.arange(bits, dtype=torch.int32, device=packed.device)
    return (stream * place).sum(-1).to(torch.uint8)
