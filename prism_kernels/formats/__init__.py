"""Storage formats: frozen dataclasses of device-neutral tensors."""

from ._base import FormatError, PackedWeight

__all__ = ["FormatError", "PackedWeight"]
