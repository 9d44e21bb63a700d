"""What the C library does with freed memory.

glibc gives every freed block above 32 MiB back to the system at once, and smaller ones sooner or later. The next tensor
of that size then faults all its pages in again, which takes half of the time of rendering a view: its activations have
150 MB each.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt, from glibc's malloc.h
_KEPT_BYTES = 2**30
_SET_BY_USERS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let this process use freed memory again, of which it keeps up to 1 GiB at the end of its heap.

    With another C library nothing happens. Nor does it if the environment says what malloc keeps
    (`MALLOC_MMAP_MAX_` and the like, or `glibc.malloc...` in `GLIBC_TUNABLES`).

    Returns:
        Whether it does.
    """
    if any(name in os.environ for name in _SET_BY_USERS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # no block comes from mmap, whose memory cannot be kept; all come from the heap
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
