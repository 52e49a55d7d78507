"""What the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from workshop import HERE, peers_environment

import agseg
from agseg.inference.device import Precision, choose_precision

PEER_PACKAGES = ("torch", "monai", "nnunetv2", "TotalSegmentator", "numpy", "scipy", "nibabel", "SimpleITK")
OUR_PACKAGES = ("torch", "numpy", "isal", "nibabel", "pydicom")


def machine() -> dict[str, Any]:
    """The processor as the system names it, its cores, threads used, memory, and what bf16 the default mode finds."""
    memory_kb = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(int(memory_kb[1]) / 2**20) if memory_kb else None,
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "default_precision": choose_precision(Precision.AUTO, torch.device("cpu")).value,
        "gpu": None,
    }


def _cpu_name() -> str:
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    numbers = [re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")]
    family, model = (number[1] if number else "?" for number in numbers)
    features = [flag for flag in ("avx512_bf16", "amx_bf16", "avx512f", "avx2") if re.search(rf"\b{flag}\b", text)]
    return f"{name[1] if name else platform.machine()} (family {family}, model {model}; {' '.join(features)})"


def versions() -> dict[str, Any]:
    """agseg with its commit, and the packages of both environments."""
    script = (
        f"import json; from importlib import metadata as m; print(json.dumps({{p: m.version(p) for p in {PEER_PACKAGES}}}))"
    )
    peers = subprocess.run([peers_environment(), "-c", script], check=True, capture_output=True, text=True)
    return {
        "python": platform.python_version(),
        "agseg": f"{agseg.__version__} ({commit()})",
        "agseg_environment": {package: metadata.version(package) for package in OUR_PACKAGES},
        "peers_environment": json.loads(peers.stdout),
    }


def commit() -> str:
    """Short name of the checked-out commit."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no checkout"
