"""What becomes of freed memory: it is kept for the next arrays, not given back to the system.

A training step frees in its backward pass what its forward pass allocates again. glibc gives the
top of its heap back each time, and the system then clears every page anew: a fifth of the time of
a transformer's step.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt
_KEPT = 1 << 30  # bytes at the top of the heap
_LARGEST = 1 << 25  # bytes of an array on the heap, the most that glibc allows


@functools.cache
def keep_freed() -> None:
    """Asks glibc to keep what is freed, for this process; elsewhere it does nothing."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _KEPT)
