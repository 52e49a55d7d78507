"""Archives are looked into, never unpacked: is one a study that nobody will get a mask for?

The table of contents says most; where a member has no suffix, its first bytes are read, as a DICOM file on a disc has none.
What this costs is bounded: so many entries, so many bytes, and the caller's limits of time and memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from agseg.errors import Code
from agseg.io.dicom.header import DICOM_MAGIC
from agseg.io.nifti_header import GZIP_MAGIC
from agseg.io.opening import open_regular
from agseg.io.readers import claimed_by_suffix
from agseg.study import Rejected

ARCHIVE = "archive"
"""Kind of a study that is an archive; no reader has it."""

MOST_ENTRIES = 20_000
"""Entries of an archive that are looked at; the images of a study are among the first."""

MOST_OPENED = 20
"""Members without a suffix that are opened."""

MOST_BYTES = 256 << 20
"""How far into a tar is read, in the bytes of the file, to get from one member to the next."""

_MAGIC_END = 132

_IMAGES = Rejected(Code.UNSUPPORTED_INPUT, "an archive of images: unpack it, or leave it out with --exclude")
_CLIMBING = Rejected(Code.UNSAFE_ARCHIVE, "an archive of images with entries that lead out of it: links, or names with '..'")
_SHUT = Rejected(Code.UNSUPPORTED_INPUT, "an archive that cannot be looked into: unpack it, or leave it out with --exclude")

_PACKED: Mapping[bytes, Callable[..., Any]] = {GZIP_MAGIC: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_LONGEST_MAGIC = 6

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, ValueError, OSError, RuntimeError)
"""What the libraries raise for damaged and encrypted archives."""


@dataclass(frozen=True)
class _Member:
    """An entry: its name, whether it may lead out of the archive, and how it is opened (None: not at all)."""

    name: str
    climbs: bool
    open: Callable[[], IO[bytes] | None] | None


def look_into(path: Path) -> Rejected | None:
    """Why an archive is a study that must not be segmented; None for one that holds no images.

    Raises
    ------
    InputError, OSError
        If the file cannot be opened.
    """
    with open_regular(path) as stream:
        try:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    return _judge(_zipped(archive))
            stream.seek(0)
            with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(stream)), mode="r|*", errorlevel=0) as tar:
                return _judge(_tarred(tar))
        except _BROKEN:
            stream.seek(0)
            return _single(stream)


def _judge(members: Iterator[_Member]) -> Rejected | None:
    images, climbs, opened = False, False, 0
    for number, member in enumerate(members):
        if number >= MOST_ENTRIES:
            break
        climbs = climbs or member.climbs
        if not images and member.open is not None:
            images = _is_named_as_image(member.name)
            if not images and opened < MOST_OPENED and not PurePosixPath(member.name).suffix[1:].isalpha():
                opened += 1
                images = _begins_as_dicom(member)
        if images and climbs:
            return _CLIMBING
    return _IMAGES if images else None


def _is_named_as_image(name: str) -> bool:
    return claimed_by_suffix(name) is not None or PurePosixPath(name).name.upper() == "DICOMDIR"


def _begins_as_dicom(member: _Member) -> bool:
    if member.open is None:
        return False
    try:
        stream = member.open()
        return stream is not None and stream.read(_MAGIC_END)[128:] == DICOM_MAGIC
    except _BROKEN:
        return False


def _zipped(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in archive.infolist():
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        opening = None if entry.is_dir() or is_link else partial(archive.open, entry)
        yield _Member(entry.filename, is_link or _climbs(entry.filename), opening)


def _tarred(archive: tarfile.TarFile) -> Iterator[_Member]:
    for entry in archive:
        opening = partial(archive.extractfile, entry) if entry.isfile() else None
        yield _Member(entry.name, entry.issym() or entry.islnk() or _climbs(entry.name), opening)


def _climbs(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or plain[1:2] == ":"


def _single(stream: IO[bytes]) -> Rejected | None:
    """One packed file (``scan.dcm.gz``), or an archive of another kind, of which nothing can be said."""
    head = stream.read(_LONGEST_MAGIC)
    stream.seek(0)
    unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    if unpack is None:
        return _SHUT
    try:
        with unpack(stream) as unpacked:
            return _IMAGES if unpacked.read(_MAGIC_END)[128:] == DICOM_MAGIC else None
    except (*_BROKEN, lzma.LZMAError):
        return None


class _Bounded:
    """A stream that ends behind :data:`MOST_BYTES`: a tar may be as long as a disk."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MOST_BYTES

    def read(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        return block
