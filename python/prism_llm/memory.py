"""Gives memory that was freed back to the system."""

import ctypes
import sys


def return_free_memory() -> None:
    """Gives freed heap pages back to the system, where the C library is glibc.

    Its heap otherwise grows by the fragments that each linear and block leave: in the end, by the size of the dense
    model.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
