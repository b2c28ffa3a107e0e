"""Let a service give memory back: glibc keeps what long requests took, though they were freed."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MAPPED_FROM = 1024 * 1024  # bytes: such blocks are mapped by themselves, and unmapped when they are freed
KEPT_MOST = 8 * 1024 * 1024  # bytes that are free at the heap's top


def give_memory_back() -> bool:
    """Fix both bounds, which glibc else raises with the largest block it has seen; False where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_MOST))
