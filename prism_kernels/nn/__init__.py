"""Drop-in replacements of `nn.Linear` over packed weights."""

from ._base import PackedLinear

__all__ = ["PackedLinear"]
