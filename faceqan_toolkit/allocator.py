"""The C library's memory allocator."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_BUFFER = 1 << 30


def keep_freed_buffers() -> bool:
    """Let the process keep freed memory for its next buffers; return whether that was possible.

    Networks make and drop the same large buffers hundreds of times; glibc gives each back to the
    system and every new one costs page faults, about a tenth of the time. The process keeps its
    peak until it ends. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_BUFFER)
        and mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_BUFFER - 1)
    )
