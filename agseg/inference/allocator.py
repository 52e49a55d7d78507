"""Keep freed memory in the process instead of returning it to the system after every layer.

glibc gives each freed activation back and faults it in again page by page: more than a million page faults per tile, half of
the time. This is a setting of the whole process, so only agseg's own model process makes it; a caller who uses agseg as a
library is left alone.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory", "return_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Parameters of ``mallopt(3)``."""

_MAPPED_FROM_BYTES = 1 << 20
"""Blocks from this size on are mapped by themselves where memory matters more than time."""


def keep_freed_memory() -> bool:
    """Tell glibc never to trim the heap and never to map single blocks; False where the C library is another one."""
    return _mallopt(_M_MMAP_MAX, 0) and _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> bool:
    """Tell glibc to map every larger block by itself, so that it goes back when it is freed: smaller, and slower."""
    return _mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)


def _mallopt(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL("libc.so.6").mallopt(parameter, value))
    except (OSError, AttributeError):
        return False
