"""Keep freed memory in the process instead of returning it to the system after every layer.

glibc gives each freed activation back and faults it in again page by page: more than a million page faults per tile, half of
the time. This is a setting of the whole process, so only agseg's own model process makes it; a caller who uses agseg as a
library is left alone.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of ``mallopt(3)``."""


def keep_freed_memory() -> bool:
    """Tell glibc never to trim the heap and never to map single blocks; False where the C library is another one."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
