"""Human-readable text for the errors of the operating system, in place of an exception's name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_WORDS = {
    errno.ENOENT: "it does not exist",
    errno.EEXIST: "a file, or a link, stands in its place",
    errno.ENOTDIR: "a part of its path is a file",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "its permissions forbid it",
    errno.EPERM: "its permissions forbid it",
    errno.EROFS: "the file system is read-only",
    errno.ELOOP: "its path holds a link that is not followed",
    errno.ENAMETOOLONG: "its name is too long",
}


def in_words(error: Exception) -> str:
    """What an OSError, or an error of decoding, says about a file."""
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return f"unexpected {type(error).__name__}"
    return _WORDS.get(number) or f"{os.strerror(number)} ({errno.errorcode.get(number, number)})"


def no_folder(path: Path) -> str | None:
    """Why there is no folder here; None if there is one."""
    if path.is_dir():
        return None
    return "this is a file, a folder was expected" if os.path.lexists(path) else "this folder does not exist"
