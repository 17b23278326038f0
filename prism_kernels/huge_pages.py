"""Weights in memory pages of 2 MB, which a core reads far faster than pages of 4 KB.

At few tokens a linear is as fast as its weight comes from memory. In small pages every 4 KB need a translation of their
address, which inside a virtual machine is two nested walks, and hardware prefetching ends at each page; one core of a
virtual Zen 4 was seen to read 17 GB/s from small pages and 28 from huge ones. Linux gives huge pages only to who asks
(its usual setting is `madvise`), and allocators do not ask.

`collapse` puts the pages of tensors that are there already together, in place (`MADV_COLLAPSE`, Linux 6.1): addresses
stay, no allocator is replaced, and no memory is added but what a neighbour in the same page had not touched. Drop-in
linears call it for their packed weights; any other tensor, such as the dense weights that stay in a model, may be given
to it as well. Older kernels are asked to do the same in the background (`MADV_HUGEPAGE`). PRISM_HUGE_PAGES=0 leaves all
pages as they are.
"""

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterable

import torch

PAGE_BYTES = 2 * 2**20
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25

#: (address, bytes, advice) -> 0 or an errno.
_Advise = Callable[[int, int, int], int]


def _libc_advise() -> _Advise:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int

    def advise(address: int, nbytes: int, advice: int) -> int:
        return ctypes.get_errno() if function(address, nbytes, advice) else 0

    return advise


_advise = _libc_advise() if sys.platform == "linux" else None


def reason_against() -> str:
    """Why nothing is collapsed on this machine, or "" where it is."""
    if os.environ.get("PRISM_HUGE_PAGES", "1") == "0":
        return "off (PRISM_HUGE_PAGES=0)"
    if _advise is None:
        return f"off (not known of {sys.platform})"
    return ""


def status() -> str:
    """What `collapse` does on this machine, found by trying it on 4 MB of its own."""
    against = reason_against()
    if against:
        return against
    assert _advise is not None
    with mmap.mmap(-1, 2 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = ctypes.c_char.from_buffer(memory)
        page = -(-ctypes.addressof(view) // PAGE_BYTES) * PAGE_BYTES
        ctypes.memset(page, 1, PAGE_BYTES)
        error = _advise(page, PAGE_BYTES, _MADV_COLLAPSE)
        if error == errno.EINVAL:
            error = _advise(page, PAGE_BYTES, _MADV_HUGEPAGE)
            found = "asked for, given in the background (Linux before 6.1)" if not error else ""
        else:
            found = "given to packed weights" if not error else ""
        del view
    return found or f"refused by the system ({os.strerror(error)})"


def collapse(tensors: Iterable[torch.Tensor]) -> int:
    """Puts the memory of CPU tensors into huge pages where it can.

    A page is taken that a tensor covers by half or more; tensors smaller than that stay as they are. Values, addresses
    and strides do not change. The system copies each page once.

    Args:
        tensors: of any dtype and device; those without contiguous memory of their own on a CPU are skipped.

    Returns:
        How many bytes lie in huge pages now, those of a neighbour in a shared page included; 0 where the system gives
        none, or none at once.
    """
    if _advise is None or reason_against():
        return 0
    placed = 0
    for tensor in tensors:
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)  # a fake tensor has no memory
        if not plain or not tensor.is_cpu or tensor.layout != torch.strided or not tensor.is_contiguous():
            continue
        begin = tensor.data_ptr()
        first, last = (round(at / PAGE_BYTES) for at in (begin, begin + tensor.numel() * tensor.element_size()))
        placed += _collapse_range(first * PAGE_BYTES, (last - first) * PAGE_BYTES)
    return placed


def _collapse_range(begin: int, nbytes: int) -> int:
    """How many bytes of a range of whole huge pages are in huge pages afterwards."""
    assert _advise is not None
    if nbytes <= 0:
        return 0
    error = _advise(begin, nbytes, _MADV_COLLAPSE)  # each call makes all cores give up cached pages: one for all pages
    if not error:
        return nbytes
    if error == errno.EINVAL:
        _advise(begin, nbytes, _MADV_HUGEPAGE)
        return 0
    pages = range(begin, begin + nbytes, PAGE_BYTES)
    return PAGE_BYTES * sum(not _advise(page, PAGE_BYTES, _MADV_COLLAPSE) for page in pages)
