"""Codes to a little-endian bit stream per row."""

import torch


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes u8 [n, c] -> u8 [n, ceil(c * bits / 8)]: code i takes stream bits [i * bits, (i + 1) * bits), stream bit t
    is bit t % 8 of byte t // 8; padding bits are 0. Only the low `bits` bits of a code are stored."""
    n, count = codes.shape
    stream = (codes.unsqueeze(-1) >> torch.arange(bits, dtype=torch.uint8, device=codes.device)) & 1
    stream = torch.nn.functional.pad(stream.flatten(1), (0, -count * bits % 8))
    place = 2 ** torch.arange(8, dtype=torch.int32, device=codes.device)
    return (stream.reshape(n, -(-count * bits // 8), 8) * place).sum(-1).to(torch.uint8)
