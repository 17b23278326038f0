"""Kernels and drop-in modules for pruned and quantized linear layers.

`prism_kernels.ops` has the functions, `prism_kernels.formats` the storage formats, `prism_kernels.nn` the modules, and
`swap_linears` replaces the `nn.Linear` of a model. `python -m prism_kernels` shows what serves each op on this machine.
"""

# Ops are defined before a compiled library fills their slots; `dispatch` loads the libraries.
from . import ops

# isort: split
from . import dispatch, formats, nn
from .swap import swap_linears

__version__ = "0.1.0"
__all__ = ["__version__", "dispatch", "formats", "nn", "ops", "swap_linears"]
