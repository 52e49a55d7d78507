"""torch imported for inference alone, a third faster.

``import torch`` also loads what describes its operators to compilers: the formulas of ``torch._meta_registrations`` and the
tracing of ``torch.export``. That is a third of its 1.3 s, of which a run over one small CT has to wait for every
millisecond, and computing a network never asks for it. Here empty modules stand in their place while torch is imported, and
are taken away afterwards: who imports one of them later gets the real one.

These are torch's inner affairs, so it is done for the versions only with which the tests have compared the networks' outputs,
bit by bit, and only for builds without CUDA or ROCm, which nobody here could try. Any other torch is imported whole.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SKIPPED = ("torch._meta_registrations", "torch.export")
"""What is left out."""

_TESTED = re.compile(r"^__version__ = '2\.13\.\d+(\+cpu)?'$", re.MULTILINE)
_ACCELERATOR = re.compile(r"^(cuda|hip|xpu)\b.* = '", re.MULTILINE)


def import_torch() -> None:
    """Import torch, without :data:`SKIPPED` where that is known to change nothing."""
    if "torch" in sys.modules or not _is_known():
        import torch

        return
    for name in SKIPPED:
        stand_in = ModuleType(name)
        stand_in.__path__ = []  # a package, of which nothing can be imported
        sys.modules[name] = stand_in
    try:
        import torch
    finally:
        for name in SKIPPED:
            del sys.modules[name]
    for name in SKIPPED:
        delattr(torch, name.rpartition(".")[2])


def _is_known() -> bool:
    """Whether the installed torch is one that this was tested with, found out without importing it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    try:
        version = Path(found.origin).with_name("version.py").read_text()
    except OSError:
        return False
    return _TESTED.search(version) is not None and _ACCELERATOR.search(version) is None
