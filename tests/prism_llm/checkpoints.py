"""Compressed tiny models, and checkpoints of them to read and to spoil."""

import hashlib
from pathlib import Path

import torch
from tiny_models import tiny_model, tokens

from prism_kernels import ops
from prism_kernels.formats import BitmapWeight
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    CsrLinear,
    DualShiftLinear,
    LowRankLinear,
    PermutedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
    TieredLinear,
)

MODULES = {
    "dual_shift": (DualShiftLinear, {"bits": 4, "group_size": 16}, False),
    "dual_shift_nf4": (DualShiftLinear, {"bits": 4, "group_size": 24, "codebook": "nf4"}, False),
    "bitmap": (BitmapLinear, {}, True),
    "bitmap_dual_shift": (BitmapDualShiftLinear, {"bits": 3, "group_size": 16}, True),
    "sparse24": (Sparse24Linear, {}, True),
    "sparse24_dual_shift": (Sparse24DualShiftLinear, {"bits": 4, "group_size": 16}, True),
}
#: Formats whose round trip one architecture shows.
MORE_MODULES = {
    "csr": (CsrLinear, {}, True),
    "tiered": (TieredLinear, {}, True),
    "low_rank": (LowRankLinear, {"rank": 3}, False),
    "low_rank_on_bitmap": (LowRankLinear, {"rank": 3}, False),
    "permuted": (PermutedLinear, {"base": "bitmap_dual_shift", "bits": 4, "group_size": 16}, True),
}
ARCHITECTURES = ("llama", "opt", "qwen2", "qwen3", "gemma", "mistral", "gemma3", "gpt_neox", "phi3")
RECIPE = {"method": "test", "sparsity": 0.5, "bits": 4, "targets": ["Linear"], "nested": {"a": 1}}


def pack_linears(model: torch.nn.Module, kind: str) -> torch.nn.Module:
    """Replaces every linear but the head."""
    module, options, sparse = (MODULES | MORE_MODULES)[kind]
    generator = torch.Generator().manual_seed(7)
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            scores = torch.rand(linear.weight.shape, generator=generator)
            mask = (ops.nm_mask(scores, 2, 4) if kind.startswith("sparse24") else scores < 0.5) if sparse else None
            if kind == "low_rank_on_bitmap":
                options = options | {"base": BitmapWeight.pack(linear.weight.detach(), scores < 0.5)}
            if kind == "permuted":
                options = options | {"index": torch.randperm(linear.in_features, generator=generator)}
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.from_linear(linear, mask, **options))
    return model


def make(kind: str = "bitmap_dual_shift", architecture: str = "llama", **options) -> torch.nn.Module:
    return pack_linears(tiny_model(architecture, layers=2, **options), kind)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=tokens(2, 12)).logits


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
