"""Prepared cases on disk, so that a run that starts again does not read and resample every scan again.

A file holds one case as samples are drawn from it: on the model grid, normalised. Its name is a digest of everything that it
follows from: the bytes of the case's files, the grid and the normalisation, what the labels mean, and the version of agseg.
Whoever changes one of these gets another file. Files are mapped into memory, not read into it: what samples touch is loaded,
once for all processes of a machine.

A file ends with the SHA-256 of all that stands before. One that is damaged is told and made anew. Two runs that make the same
file write under names of their own, and the later one replaces an equal file. These are patients' scans, and readable by their
owner alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agseg import __version__
from agseg.errors import OutputError, RecipeError
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.training.cases import Case

_log = logging.getLogger(__name__)

MAGIC = b"agseg case 1\n"
"""Begins a file; another layout has another number."""

ENDING, NOTE = ".case", ".sha256"
"""Of prepared cases, and of digests that are noted."""

_LENGTH = struct.Struct("<Q")
_DIGEST = hashlib.sha256().digest_size
_ALIGNED = 64
_DTYPES = {"float32": np.float32, "uint8": np.uint8}


class _DamagedError(Exception):
    """A file is not what it was when it was written."""


@dataclass(eq=False)
class CaseCache:
    """A folder of prepared cases.

    Parameters
    ----------
    folder
        Made when the first case is written.
    limit_bytes
        What all files may take together: those that were not used for longest go. Never those of this run; a case for which
        there is no place is prepared again at the next start.
    """

    folder: Path
    limit_bytes: float
    _used: set[Path] = field(default_factory=set)
    _digests: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    _told: bool = False

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise RecipeError("the cache is a file", path=self.folder, expected="a folder", hint="Choose another with --cache.")

    def case(self, case_id: str, *, files: tuple[Path, ...], facts: Mapping[str, Any], make: Callable[[], Case]) -> Case:
        """A prepared case: from its file where there is a sound one, else made and kept.

        Parameters
        ----------
        files
            What it is made from: image of every channel and labels.
        facts
            What else it follows from, as JSON takes it.
        make
            Prepares it.
        """
        path = self.folder / f"{self._key(files, facts)}{ENDING}"
        self._used.add(path)
        try:
            return _opened(path, case_id)
        except FileNotFoundError:
            pass
        except (_DamagedError, OSError) as error:
            _log.warning("the cached case %s is made anew: %s", path, error)
        made = make()
        try:
            content = _content(made)
            if not self._room(sum(len(part) for part in content), path):
                return made
            with replacing(path) as temporary, temporary.open("wb") as file:
                file.writelines(content)
            return _opened(path, case_id)
        except (OutputError, OSError, _DamagedError) as error:
            self._tell(error)
            return made

    def digest(self, *, files: tuple[Path, ...], facts: Mapping[str, Any], make: Callable[[], str]) -> str:
        """A SHA-256 in hex that follows from files and facts: as noted, or made and noted."""
        path = self.folder / f"{self._key(files, facts)}{NOTE}"
        try:
            noted = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            noted = ""
        if re.fullmatch("[0-9a-f]{64}", noted):
            return noted
        made = make()
        try:
            write_text(path, made)
        except OutputError as error:
            self._tell(error)
        return made

    def _tell(self, error: Exception) -> None:
        """Say once that nothing more is kept."""
        if not self._told:
            _log.warning("cases are not cached in %s: %s", self.folder, error)
        self._told = True

    def _key(self, files: tuple[Path, ...], facts: Mapping[str, Any]) -> str:
        told = [__version__, [self._file_digest(path) for path in files], facts]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _file_digest(self, path: Path) -> str:
        """SHA-256 of a file, computed once in a run."""
        found = path.stat()
        known = (path, found.st_size, found.st_mtime_ns)
        if known not in self._digests:
            with path.open("rb") as file:
                self._digests[known] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[known]

    def _room(self, wanted: int, path: Path) -> bool:
        """Whether a file of this size has a place, after what was not used for longest has gone."""
        make_folder(self.folder)
        sizes = {}
        for other in self.folder.glob(f"*{ENDING}"):
            try:
                found = other.stat()
            except FileNotFoundError:  # another run has let it go
                continue
            sizes[other] = (found.st_mtime_ns, found.st_size)
        sizes.pop(path, None)
        total = sum(size for _, size in sizes.values())
        for other, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
            if total + wanted <= self.limit_bytes:
                break
            if other not in self._used:
                other.unlink(missing_ok=True)
                total -= size
        if total + wanted <= self.limit_bytes:
            return True
        if not self._told:
            _log.warning(
                "the cache %s is full (%.1f GB): further cases are kept in memory", self.folder, self.limit_bytes / 1e9
            )
        self._told = True
        return False


def _content(case: Case) -> list[bytes]:
    """The parts of a case's file."""
    arrays = {"image": case.stacked(), "labels": case.labels}
    if case.structures is not None:
        arrays["structures"] = case.structures
    header: dict[str, Any] = {"normalised": case.normalised, "arrays": []}
    parts, at = [], 0
    for name, tensor in arrays.items():
        values = np.ascontiguousarray(tensor.numpy())
        header["arrays"].append({"name": name, "dtype": str(values.dtype), "shape": list(values.shape), "at": at})
        content = values.tobytes()
        content += bytes(-len(content) % _ALIGNED)
        parts.append(content)
        at += len(content)
    told = json.dumps(header).encode()
    told += b" " * (-(len(MAGIC) + _LENGTH.size + len(told)) % _ALIGNED)
    whole = [MAGIC, _LENGTH.pack(len(told)), told, *parts]
    digest = hashlib.sha256()
    for part in whole:
        digest.update(part)
    return [*whole, digest.digest()]


def _opened(path: Path, case_id: str) -> Case:
    """The case of a file, its arrays mapped; pages that someone writes to stay with them.

    Raises
    ------
    FileNotFoundError
        If there is none.
    _DamagedError
        If it is not what was written.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + _LENGTH.size + _DIGEST:
            raise _DamagedError("it is cut off")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        os.utime(path)  # used: others go first
    view = memoryview(mapped)
    if hashlib.sha256(view[:-_DIGEST]).digest() != view[-_DIGEST:]:
        raise _DamagedError("its content is not what was written")
    if view[: len(MAGIC)] != MAGIC:
        raise _DamagedError("it is of another kind")
    begin = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack(view[len(MAGIC) : begin])
    header = json.loads(bytes(view[begin : begin + length]))
    arrays: dict[str, Tensor] = {}
    for entry in header["arrays"]:
        shape, dtype = tuple(entry["shape"]), _DTYPES[entry["dtype"]]
        values = np.ndarray(shape, dtype, buffer=mapped, offset=begin + length + entry["at"])
        arrays[entry["name"]] = torch.from_numpy(values)
    image, *more = arrays["image"]
    return Case(
        case_id,
        image,
        arrays["labels"],
        structures=arrays.get("structures"),
        more=tuple(more),
        normalised=header["normalised"],
        _found={"stacked": arrays["image"]},
    )
