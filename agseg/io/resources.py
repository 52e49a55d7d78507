"""Finds the data files that travel with agseg: ``weights_manifest.yaml``, ``train/`` and the packaged weights.

In a checkout they stand beside the package (and are edited there); in a wheel they were put into ``agseg/data``.
"""

from __future__ import annotations

from pathlib import Path

from agseg.errors import AgsegError

_PACKAGE = Path(__file__).resolve().parent.parent


def resource_path(name: str) -> Path:
    """Absolute path of a file or folder that belongs to agseg, e.g. ``"weights_manifest.yaml"`` or ``"train/recipes"``.

    Raises
    ------
    AgsegError
        If the installation lacks it.
    """
    for root in (_PACKAGE / "data", _PACKAGE.parent):
        candidate = root / name
        if candidate.exists():
            return candidate
    raise AgsegError(f"this installation of agseg lacks {name}", hint="Install agseg again.")
