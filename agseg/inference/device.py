"""Device and precision selection; the choice is recorded in the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.errors import UsageError
from agseg.models.precision import Precision


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``gpu``, ``gpu:1``, ``cuda``, ``cuda:1`` or ``mps`` as a torch device.

    Raises
    ------
    UsageError
        If the name is unknown, or the device is not there: a GPU that was asked for is never replaced silently.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("no Metal device on this machine", value="mps", hint="Use --device cpu.")
        return torch.device("mps")
    match = re.fullmatch(r"(?:gpu|cuda)(?::(\d+))?", name)
    if match is None:
        raise UsageError("unknown device", value=name, expected="auto, cpu, gpu[:N], cuda[:N] or mps")
    index = int(match.group(1) or 0)
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise UsageError("no GPU is visible to torch here", value=name, hint="Use --device cpu or auto.")
    if index >= found:
        there = ", ".join(f"gpu:{number}" for number in range(found))
        raise UsageError("that GPU is not there", value=name, expected=there, hint="Use --device cpu or auto.")
    return torch.device("cuda", index)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Decide ``auto``: bf16 where the hardware multiplies it natively, fp16 on older GPUs, else fp32.

    Raises
    ------
    UsageError
        For fp16 on a CPU that emulates it, which takes tens of times as long as fp32.
    """
    if wanted is Precision.FP16 and device.type == "cpu" and _cpu_has("avx512_fp16", "amx_fp16", "asimdhp") is False:
        raise UsageError(
            "this CPU has no fp16 arithmetic: it would take tens of times as long as fp32",
            value=f"--precision {wanted}",
            hint="Leave --precision out.",
        )
    if wanted is not Precision.AUTO:
        return wanted
    if device.type == "cuda":
        return Precision.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FP16
    # AVX512-BF16 or AMX; elsewhere bf16 is emulated and slower than fp32.
    if device.type == "cpu" and _cpu_has("avx512_bf16", "amx_bf16"):
        return Precision.BF16
    return Precision.FP32


def _cpu_has(*wanted: str) -> bool | None:
    """Whether this CPU has one of these instruction sets, as Linux names them on x86 and ARM; None where that is not known."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    return None if flags is None else not set(wanted).isdisjoint(flags.group(1).split())


def describe(device: torch.device) -> str:
    """A name for the record: ``cpu (2 threads)`` or ``cuda:0 (NVIDIA ...)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def tune(device: torch.device) -> None:
    """Let cuDNN try its ways to convolve once per shape and keep the fastest: tiles of a network all have one shape.

    A setting of the whole process, so only agseg's own model process makes it. On another GPU, or under another load, another
    way may win, whose sums differ in their last bits.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; on its way to a CUDA device, from pinned memory, nobody waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(tensor: Tensor) -> NDArray[Any]:
    """The values, once the device has them: the one place where a host waits for the device.

    Each wait lets the device run dry, so that whoever needs several answers asks for all of them at once.
    """
    return np.asarray(tensor.cpu().numpy())
