"""How much memory this machine, or the container it pretends to be, has, and how much a process uses."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["machine_memory_bytes", "resident_bytes"]

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is lower (bytes)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        try:
            memory = min(memory, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return memory


def resident_bytes(process: int) -> int | None:
    """Resident memory of a process without pages it shares with others (bytes); None where it cannot be told."""
    try:
        fields = Path(f"/proc/{process}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
