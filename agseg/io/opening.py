"""Safe opening of files that somebody else wrote: no link is followed, and only regular files are read.

Between listing a folder and opening a file its name may have become a link, a pipe or a device. So the descriptor that was
opened is examined, not the name, and opening waits for nobody (``O_NONBLOCK``: a pipe without a writer would hang for ever).
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from agseg.errors import Code, InputError

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: Path) -> io.BufferedReader:
    """The file, opened for reading.

    Raises
    ------
    InputError
        ``E_SYMLINK`` for a link, ``E_UNREADABLE_FILE`` for anything else that is not a regular file.
    OSError
        If it cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError("links are not followed", code=Code.SYMLINK, path=path) from None
        if error.errno == errno.ENXIO:  # a socket, or a device without hardware
            raise InputError("not a regular file", code=Code.UNREADABLE_FILE, path=path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError("not a regular file", code=Code.UNREADABLE_FILE, path=path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
