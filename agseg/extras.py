"""Packages that only some of agseg needs, and the extra of ``pip install 'agseg[EXTRA]'`` that brings each."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from agseg.errors import UsageError

EXTRA_OF = {
    "highdicom": "dicom",
    "pynetdicom": "pacs",
    "batchgeneratorsv2": "train",
    "lightning_fabric": "train",
    "matplotlib": "train",
    "av": "video",
    "monai": "monai",
    "dask": "cluster",
    "distributed": "cluster",
    "dask_jobqueue": "cluster",
    "cryptography": "cluster",
}
"""Extra that brings a package, by the name it is imported by."""


class MissingPackageError(UsageError):
    """A package of an extra is not installed; ``hint`` is the command that installs it."""


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'agseg[{extra}]'"


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ValueError:
        return False


def require(module: str, *, purpose: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module
        ``"highdicom"``, ``"matplotlib.figure"``, ...; its package is one of :data:`EXTRA_OF`.
    purpose
        What needs it, for the message: ``"training"``.

    Raises
    ------
    MissingPackageError
        If it, or a package that it needs itself, is not installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise missing(package, purpose=purpose, extra=EXTRA_OF[package]) from error


def missing(package: str, *, purpose: str, extra: str) -> MissingPackageError:
    """The error of a package that is not installed."""
    return MissingPackageError(f"{purpose} needs the package {package}, which is not installed", hint=install_hint(extra))
