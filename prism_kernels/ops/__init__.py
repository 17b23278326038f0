"""The public op functions. Each module here holds one op's schema, fake, argument checks and public function."""

from .nm_mask import nm_mask

__all__ = ["nm_mask"]
