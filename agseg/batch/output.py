"""The run's output folder: created or checked first, locked, and cleared of what an interrupted run left.

Two whole runs on one folder exclude each other. Parts of one run (``--num-parts``) share the folder: each holds the run's
lock shared and its own part's lock alone, so a whole run and a part exclude each other, and so do two of the same part.
The locks are ``flock``: the kernel frees them when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agseg.batch.job import Part
from agseg.errors import AgsegError, Code, LockedError, OutputError, UsageError
from agseg.io.atomic import FILE_MODE, FOLDER_MODE, TEMPORARY_SUFFIX, output_error
from agseg.spawn import PRIVATE_UMASK

LOCK_NAME = ".agseg.lock"

TEMPORARY = re.compile(r"\.agseg-tmp-(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>[0-9]+)-[0-9a-f]{12}")
"""Names of folders and files that are not finished; they stand directly below the output folder."""

_PREFIX = ".agseg-tmp-"
_RESERVE_NAME = ".agseg.reserve"
_RESERVE_BYTES = 1 << 20


@dataclass(frozen=True)
class Output:
    """A claimed output folder."""

    root: Path
    part: Part
    dry_run: bool = False

    def release_reserve(self) -> None:
        """Give back the space kept for the record, so that it can be written on a full disk."""
        (self.root / _RESERVE_NAME).unlink(missing_ok=True)


def temporary_name() -> str:
    """A fresh name that :data:`TEMPORARY` matches; machine and process id tell a sweep whose it was."""
    return f"{_PREFIX}{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"


def _machine() -> str:
    """Which of the machines that share the folder it is; not its name."""
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def make_folders(root: Path, relative: str) -> Path:
    """Make ``root/relative`` (mode 0700) without following a link on the way.

    Raises
    ------
    OutputError
        ``E_SYMLINK`` if a part of it is a link, ``E_OUTPUT`` if one is a file.
    """
    folder, names = root, relative.split("/") if relative else []
    if {"", ".", ".."}.intersection(names):
        raise OutputError("a study's name must not climb out of the output folder", code=Code.PATH_ESCAPE)
    for name in names:
        folder = folder / name
        try:
            folder.mkdir(mode=FOLDER_MODE)
            folder.chmod(FOLDER_MODE)
        except FileExistsError:
            if folder.is_symlink():
                raise OutputError("the output folder holds a link where a study's folder goes", code=Code.SYMLINK) from None
            if not folder.is_dir():
                raise OutputError("the output folder holds a file where a study's folder goes") from None
    return folder


@contextmanager
def claim_output(
    root: Path, *, inputs: Iterable[Path] = (), dry_run: bool = False, part: Part | None = None
) -> Iterator[Output]:
    """Hold the output folder for one run.

    Parameters
    ----------
    root
        Where results go; made if it is not there, and gone again if the run is refused before it wrote anything.
    inputs
        What is read: nothing is written into these folders themselves.
    dry_run
        Only look: make nothing, lock nothing.
    part
        Which share of the run this process does.

    Raises
    ------
    UsageError
        If it is one of the inputs.
    OutputError
        If the folder cannot be made or written to.
    LockedError
        If another run holds it.
    """
    part = part or Part()
    root = root.absolute()
    if any(given.is_dir() and given.resolve() == root.resolve() for given in inputs):
        raise UsageError(
            "the output folder is an input", path=root, hint="Name another folder with -o: input is never changed."
        )
    if dry_run:
        yield Output(root, part, dry_run=True)
        return
    with ExitStack() as held:
        # Results are patient data: whatever the umask was, the owner alone reads what is made from here on.
        held.callback(os.umask, os.umask(PRIVATE_UMASK))
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
            root = root.resolve(strict=True)
        except OSError as error:
            raise output_error(error, "the output folder cannot be made", path=root) from error
        if part.is_whole:
            held.enter_context(_locked(root / LOCK_NAME, fcntl.LOCK_EX))
        else:
            held.enter_context(_locked(root / LOCK_NAME, fcntl.LOCK_SH))
            held.enter_context(_locked(root / f"{LOCK_NAME}.part-{part.index}-of-{part.count}", fcntl.LOCK_EX))
        _sweep(root, alone=part.is_whole)
        output = Output(root, part)
        _reserve(root)
        refused = False
        try:
            yield output
        except AgsegError:
            refused = True
            raise
        finally:
            output.release_reserve()
            _sweep(root, alone=part.is_whole)
            if refused and part.is_whole:
                _take_back(root, made)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for, then hold, a short lock (parts that write the common record take turns)."""
    with _locked(path, fcntl.LOCK_EX, wait=True):
        yield


@contextmanager
def _locked(path: Path, kind: int, *, wait: bool = False) -> Iterator[None]:
    try:
        # O_CLOEXEC: a child never holds the lock, so that it is free as soon as the run's own process is gone.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    except OSError as error:
        raise output_error(error, "the output folder cannot be written to", path=path.parent) from error
    try:
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "another run is writing into this output folder",
                path=path.parent,
                hint="Wait for it to end, or give another folder with -o.",
            ) from None
        except OSError as error:
            raise output_error(error, "this file system does not lock files", path=path.parent) from error
        if not _names(path, handle):
            raise LockedError(
                "another run had this output folder, and took it back while this one began",
                path=path.parent,
                hint="Start again.",
            )
        yield
    finally:
        os.close(handle)


def _names(path: Path, handle: int) -> bool:
    """Whether the open file is still the one of this name: a lock on a removed file would exclude nobody."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _take_back(root: Path, made: Iterable[Path]) -> None:
    """Remove the folders that the run made (the innermost first), if nothing but its lock is in them; the lock is held."""
    folders = list(made)
    if not folders or [path.name for path in root.iterdir()] != [LOCK_NAME]:
        return
    (root / LOCK_NAME).unlink()
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # somebody has put something there meanwhile
            return


def _sweep(root: Path, *, alone: bool) -> None:
    """Remove what an interrupted run left.

    A part leaves what a living process may still be writing; of other machines, whose processes it cannot see, all of it.
    """
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        path = root / name
        if found := TEMPORARY.fullmatch(name):
            owner = int(found["process"])
            elsewhere = found["machine"] not in (None, _machine())
            keep = not alone and (elsewhere or (owner != os.getpid() and _is_alive(owner)))
        else:
            keep = not (alone and name.startswith(".") and TEMPORARY_SUFFIX in name)
        if keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _reserve(root: Path) -> None:
    """Show that the folder can be written to, and keep room for the record."""
    path = root / _RESERVE_NAME
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            os.write(handle, bytes(_RESERVE_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise output_error(error, "the output folder cannot be written to", path=root) from error
