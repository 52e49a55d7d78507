"""The folder that pulled series arrive in: ``<folder>/<hash>/<hash>/<hash>.dcm``.

No name comes from a header: each is a hash of a UID, so nothing that an archive says can become a path, and nothing tells
who a folder belongs to. A series has its name only when it is complete; until then it is a hidden folder, which discovery
does not look into.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agseg.errors import PacsError
from agseg.io.atomic import FILE_MODE, TEMPORARY_SUFFIX, make_folder, output_error
from agseg.io.dicom_out.result import is_own_object
from agseg.io.pacs.archive import RemoteSeries

__all__ = ["Arrival", "arriving", "has_arrived", "series_folder"]

NAME_DIGITS = 24
"""Hex digits of a name."""


def hashed_name(uid: str) -> str:
    """A name that depends on nothing but the UID and does not show it."""
    return hashlib.sha256(f"agseg pacs {uid}".encode()).hexdigest()[:NAME_DIGITS]


def series_folder(root: Path, series: RemoteSeries) -> Path:
    """Where a series lies once it is complete."""
    return root / hashed_name(series.study_uid) / hashed_name(series.series_uid)


def has_arrived(root: Path, series: RemoteSeries, instances: frozenset[str]) -> bool:
    """Whether exactly the images with these SOPInstanceUIDs lie in the series' folder: a replaced one changes no count."""
    folder = series_folder(root, series)
    return folder.is_dir() and {path.stem for path in folder.glob("*.dcm")} == {hashed_name(uid) for uid in instances}


class Arrival:
    """A series on its way in."""

    def __init__(self, folder: Path, series: RemoteSeries) -> None:
        self._folder, self._series = folder, series
        self.names: set[str] = set()
        self.own = 0

    def accept(self, dataset: Any) -> None:
        """Write one instance (a pydicom data set).

        Raises
        ------
        PacsError
            If it is not of the series that was asked for, or has no UID of its own.
        """
        asked = (self._series.study_uid, self._series.series_uid)
        if (str(dataset.get("StudyInstanceUID", "")), str(dataset.get("SeriesInstanceUID", ""))) != asked:
            raise PacsError("the archive sent an image of another series")
        if is_own_object(dataset):
            self.own += 1
            return
        uid = str(dataset.get("SOPInstanceUID", ""))
        if not uid:
            raise PacsError("the archive sent an image without a UID")
        name = hashed_name(uid)
        path = self._folder / f"{name}.dcm"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), FILE_MODE)
            with os.fdopen(descriptor, "wb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset.save_as(file, enforce_file_format=True)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(error, "an image could not be written", path=path.parent.parent) from None
        except Exception as error:
            raise PacsError(f"the archive sent an image that cannot be written ({type(error).__name__})") from None
        self.names.add(name)

    def missing(self, instances: frozenset[str]) -> int:
        """How many of these SOPInstanceUIDs have not come."""
        return max(0, len({hashed_name(uid) for uid in instances} - self.names) - self.own)


@contextmanager
def arriving(root: Path, series: RemoteSeries) -> Iterator[Arrival]:
    """Receive a series into a hidden folder; at the end it gets its name and replaces an older state, or nothing changes."""
    final = series_folder(root, series)
    make_folder(final.parent)
    # Directly below the root, where the next run on this folder sweeps away what a killed one left.
    hidden = root / f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}-{final.name}"
    make_folder(hidden)
    old = hidden.with_name(hidden.name + "-old")
    try:
        arrival = Arrival(hidden, series)
        yield arrival
        if not arrival.names:
            return
        if final.is_dir():
            final.rename(old)
        hidden.rename(final)
    except OSError as error:
        raise output_error(error, "the series could not be put in its place", path=root) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
