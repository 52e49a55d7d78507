"""Estimate of the memory a network needs beyond its weights."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import torch

from agseg.inference.predictor import Predictor

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER = "5"
"""What ``proc(5)`` says to write so that the high-water mark starts again."""


def forward_peak_bytes(network: Predictor, batch: torch.Tensor) -> int | None:
    """Rise of memory over the loaded network while it computes one batch; None where the system does not tell.

    On a GPU it is what torch's allocator hands out, on Linux the resident memory of the process: memory that was freed
    before is returned to the system first, so that it is counted again when it is used again.

    Parameters
    ----------
    network
        Loaded; it computes once beforehand, so that libraries have their kernels.
    batch
        float32 (batch, channels, *tile).
    """
    network(batch)
    if network.device.type == "cuda":
        torch.cuda.synchronize(network.device)
        torch.cuda.reset_peak_memory_stats(network.device)
        before = torch.cuda.memory_allocated(network.device)
        network(batch)
        return int(torch.cuda.max_memory_allocated(network.device) - before)
    if network.device.type != "cpu" or not _restarts_high_water():
        return None
    before = _resident_bytes("VmRSS")
    network(batch)
    return max(0, _resident_bytes("VmHWM") - before)


def _restarts_high_water() -> bool:
    """Give freed memory back and start the high-water mark anew; False where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _CLEAR_REFS.write_text(_RESET_HIGH_WATER)
    except (OSError, AttributeError):
        return False
    return True


def _resident_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
