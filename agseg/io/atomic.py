"""Files that are either complete or not there.

A result is written under a name that begins with ``.`` in the same folder, flushed to the disk, read back by the caller's
check, and only then renamed. Whatever the umask, files are 0600 and folders 0700: results are patient data.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agseg.errors import Code, OutputError
from agseg.io.os_errors import in_words

FILE_MODE = 0o600
FOLDER_MODE = 0o700

OTHERS_FILES = "If a run by hand, as root say, left files of another user: chown -R USER gives the folder to who runs agseg."
"""What to do where rights are missing."""

TEMPORARY_SUFFIX = ".agseg-part"
"""Stands in the names of unfinished files, which begin with a dot."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def make_folder(path: Path) -> Path:
    """Create the folder and its missing parents, each with mode 0700; an existing one is left as it is.

    Raises
    ------
    OutputError
        ``E_OUTPUT_NOT_WRITABLE``, or ``E_SYMLINK`` if a link stands where the folder should be.
    """
    missing = []
    current = path
    while not current.exists() and not current.is_symlink():
        missing.append(current)
        current = current.parent
    try:
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            folder.chmod(FOLDER_MODE)
    except OSError as error:
        raise output_error(error, "the folder cannot be made", path=path) from None
    if not path.is_dir():
        raise OutputError("the output path is a file, not a folder", code=Code.OUTPUT_NOT_WRITABLE, path=path)
    return path


@contextmanager
def replacing(path: Path, *, check: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a temporary path to write to; at the end it becomes ``path``, or nothing does.

    Parameters
    ----------
    check
        Called with the temporary path after it has been flushed; it raises if the file does not read back as written.

    Raises
    ------
    OutputError
        ``E_DISK_FULL``, ``E_OUTPUT_NOT_WRITABLE``, ``E_SYMLINK`` or whatever ``check`` raises.
    """
    make_folder(path.parent)
    if path.is_symlink():
        raise OutputError("the result's path is a symbolic link", code=Code.SYMLINK, path=path)
    # The suffixes stay at the end: writers choose the format by them.
    temporary = path.with_name(f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}-{path.name}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
        yield temporary
        temporary.chmod(FILE_MODE)
        flush(temporary)
        if check is not None:
            check(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise output_error(error, "the result cannot be written", path=path) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Write a whole file, or none of it; see :func:`replacing`."""
    with replacing(path, check=check) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file with the line ends it has, or none of it."""
    write_bytes(path, content.encode("utf-8"))


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_error(error: OSError, message: str, *, path: Path | None = None) -> OutputError:
    """The OutputError for a failed write: disk full, not writable, or another."""
    if error.errno in _FULL:
        return OutputError("the disk is full, or a quota or size limit is reached", code=Code.DISK_FULL, path=path)
    code = Code.OUTPUT_NOT_WRITABLE if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else Code.OUTPUT
    hint = OTHERS_FILES if error.errno in (errno.EACCES, errno.EPERM) else None
    return OutputError(f"{message}: {in_words(error)}", code=code, path=path, hint=hint)
