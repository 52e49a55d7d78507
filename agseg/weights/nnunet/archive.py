"""A ZIP with model folders, unpacked with suspicion: only the files that are read, and nothing outside a folder of its own."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from agseg.errors import Code, WeightsError
from agseg.io.atomic import make_folder

MAX_ENTRIES = 20_000
MAX_BYTES = 64 * 1024**3
"""Caps on what an archive may hold: five folds of the largest public network are a tenth of it."""

MAX_RATIO = 200
"""No file that is read may be larger than this many times its packed size; weights hardly shrink at all, plans tenfold."""

RATIO_FREE_BYTES = 1024**2
"""Files up to this size may shrink as they like."""

_WANTED = re.compile(r"plans\.json|dataset\.json|postprocessing\.json|parts\.yaml|checkpoint_(final|best)\.pth")
"""Files of a model folder that are read; the rest stays packed."""


@contextmanager
def unpacked(path: Path, *, scratch: Path) -> Iterator[Path]:
    """A folder with the model folders of a ZIP; it is gone at the end.

    Parameters
    ----------
    scratch
        Where the folder is made.

    Raises
    ------
    WeightsError
        ``E_UNSAFE_ARCHIVE`` if an entry of the ZIP is not a plain file below its root, or the archive is larger than it says.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as problem:
        raise WeightsError("the archive cannot be read", path=path, expected="a ZIP") from problem
    with archive:
        entries = _checked(archive, path)
        folder = Path(tempfile.mkdtemp(prefix="import-", dir=make_folder(scratch)))
        try:
            for entry in entries:
                if not entry.is_dir() and _WANTED.fullmatch(PurePosixPath(entry.filename).name):
                    _extract(archive, entry, folder / entry.filename, path)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                scratch.rmdir()


def _checked(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _unsafe("the archive holds too many files", path, len(entries), MAX_ENTRIES)
    names = set()
    for entry in entries:
        name = entry.filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "\0" in name or not parts:
            raise _unsafe(
                "an entry of the archive would be written outside its folder", path, repr(name), "a plain relative path"
            )
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe("the archive holds a link or a device", path, repr(name), "plain files")
        if entry.flag_bits & 0x1:
            raise _unsafe("the archive is encrypted", path, repr(name), "no password")
        if name in names:
            raise _unsafe("the archive holds two entries of one name", path, repr(name), "each once")
        names.add(name)
        if entry.file_size > RATIO_FREE_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise _unsafe(
                "an entry of the archive unpacks to far more than its size", path, repr(name), f"at most {MAX_RATIO} times"
            )
    total, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if total > MAX_BYTES:
        raise _unsafe("the archive is too large", path, total, f"at most {MAX_BYTES} bytes")
    if packed > path.stat().st_size:
        raise _unsafe("entries of the archive share their bytes", path, packed, f"at most {path.stat().st_size} bytes")
    return entries


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(entry) as source, target.open("xb") as copy:
            # zipfile stops at the size that the entry names, and checks its CRC.
            shutil.copyfileobj(source, copy, 1024**2)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as problem:
        raise WeightsError("an entry of the archive cannot be read", path=path, value=entry.filename) from problem


def _unsafe(message: str, path: Path, value: object, expected: object) -> WeightsError:
    return WeightsError(message, code=Code.UNSAFE_ARCHIVE, path=path, value=value, expected=expected)
