"""What the C library does with freed memory.

glibc gives every freed block above 32 MiB back to the system at once, and smaller ones sooner or later. The next tensor
of that size then faults all its pages in again, which takes half of the time of rendering a view: its activations have
150 MB each. So freed memory is kept. But small blocks that live long come to lie between the large ones, and new large
ones do not fit the holes: without a limit, evaluating 200 views took 20 GB. Hence a thread that gives holes back.
"""

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt, from glibc's malloc.h
_KEPT_BYTES = 2**30
_HOLES_BYTES = 2**31  # freed memory that is still resident, at most
_SECONDS = 1.0  # between two looks at it
_SET_BY_USERS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_STATM = Path("/proc/self/statm")


class _Mallinfo2(ctypes.Structure):
    """glibc's struct, in bytes. uordblks: of blocks in use."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def keep_freed_memory() -> bool:
    """Let this process use freed memory again: up to 1 GiB at the end of its heap, and about 2 GiB in all.

    With another C library, or a glibc before 2.33, nothing happens. Nor does it if the environment says what malloc
    keeps (`MALLOC_MMAP_MAX_` and the like, or `glibc.malloc...` in `GLIBC_TUNABLES`).

    Returns:
        Whether it does.
    """
    if any(name in os.environ for name in _SET_BY_USERS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, mallinfo2, _ = library.mallopt, library.mallinfo2, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mallinfo2.restype = _Mallinfo2
    # no block comes from mmap, whose memory cannot be kept; all come from the heap
    kept = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
    if kept:
        threading.Thread(target=_watch, args=(library,), name="freed memory", daemon=True).start()
    return kept


def _watch(library: Any) -> None:
    """Give the holes of the heap back to the system whenever they are too large; never returns."""
    while True:
        time.sleep(_SECONDS)
        if _resident_bytes() - library.mallinfo2().uordblks > _HOLES_BYTES:
            library.malloc_trim(0)


def _resident_bytes() -> int:
    """The process's resident memory without that of files."""
    _, resident, of_files, *_ = map(int, _STATM.read_text().split())
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")
