"""Memory that the process has once asked for is kept for the next tensor of that size.

glibc gives large blocks back to the system as soon as they are freed, and every new page costs a fault and 4 KiB of
zeros: for activations that come and go with every micro-batch that is an eighth of the time.
"""

from __future__ import annotations

import ctypes
import functools
import platform

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
LARGEST_KEPT = 1 << 30  # bytes; a larger block still is mapped and unmapped on its own


@functools.cache
def keep_freed_memory() -> bool:
    """Tell malloc to keep freed memory, once for this process. Returns False where malloc is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 1 << 26))
    return all(mallopt(ctypes.c_int(what), ctypes.c_int(value)) == 1 for what, value in settings)
