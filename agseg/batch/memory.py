"""Memory of this machine or container, and of a process."""

from __future__ import annotations

import os
from pathlib import Path

_READER_MEMORY_SHARE = 0.5
_LEAST_READER_MEMORY_BYTES = 2 << 30

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


def reader_memory_bytes() -> int:
    """How much a process that reads a study may use (bytes), where no limit is given: a share of the machine's memory."""
    memory = machine_memory_bytes()
    return max(min(_LEAST_READER_MEMORY_BYTES, memory), int(memory * _READER_MEMORY_SHARE))


def resident_bytes(process: int) -> int | None:
    """Resident memory of a process without pages it shares with others (bytes); None where it cannot be told."""
    pages = _pages(process)
    return None if pages is None else (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE")


def virtual_bytes(process: int) -> int | None:
    """Size of a process's address space (bytes); None where it cannot be told."""
    pages = _pages(process)
    return None if pages is None else pages[0] * os.sysconf("SC_PAGE_SIZE")


def _pages(process: int) -> tuple[int, int, int] | None:
    """Pages that are mapped, resident, and resident but shared."""
    try:
        fields = Path(f"/proc/{process}/statm").read_text().split()
        return int(fields[0]), int(fields[1]), int(fields[2])
    except (OSError, ValueError, IndexError):
        return None
