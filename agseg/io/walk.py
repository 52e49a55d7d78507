"""Every file below the inputs, without following a link and without opening anything but regular files."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agseg.errors import Code, UsageError
from agseg.study import Reason, Skipped

UNSEEN = frozenset({Code.SYMLINK, Code.UNREADABLE_FILE, Code.CHANGED})
"""Reasons of walk for things that may be files of a study and were not looked at."""


CLIP_NOTE = "a video or picture: agseg classify-us takes those of ultrasound"
"""Detail of a file that another command may be for."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: absolute path, the INPUT it lies below, its path below that (``/``-separated), its size."""

    path: Path
    root: Path
    below: str
    size: int
    is_input: bool = False
    """True if the file itself was given as INPUT."""

    @property
    def folder(self) -> str:
        """Its folder's path below INPUT; empty for INPUT itself."""
        return self.below.rpartition("/")[0]


def walk(inputs: Sequence[Path], *, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Iterator[FoundFile | Skipped]:
    """Regular files below the inputs, in a fixed order; everything else as Skipped. No file is given twice.

    An INPUT that is itself a link was typed by the user and is resolved; links below it are not followed.

    ``exclude`` leaves out whatever it matches, ``include`` only files that do not match: behind a link or a name that could not
    be examined there may be a folder of files that do, and to ask which would be to follow it.

    Raises
    ------
    UsageError
        If an input does not exist.
    """
    include, exclude = tuple(include), tuple(exclude)
    seen: set[Path] = set()
    for given in inputs:
        try:
            root = given.resolve(strict=True)
            mode = root.stat().st_mode
        except (OSError, RuntimeError):
            raise UsageError("no such file or folder", path=given) from None
        if stat.S_ISDIR(mode):
            found = _walk_folder(root)
        elif stat.S_ISREG(mode):
            found = iter([FoundFile(root, root.parent, root.name, root.stat().st_size, is_input=True)])
        else:
            found = iter([Skipped(root, Reason.NOT_REGULAR)])
        for item in found:
            if item.path in seen:
                continue
            seen.add(item.path)
            below = _below(item, root)
            if below is None:
                yield item
            elif _matches(below, exclude) or (include and isinstance(item, FoundFile) and not _matches(below, include)):
                yield Skipped(item.path, Reason.EXCLUDED)
            elif _is_hidden(item, below):
                yield Skipped(item.path, Reason.HIDDEN)
            else:
                yield item


def listed(
    inputs: Sequence[Path], *, include: Iterable[str] = (), exclude: Iterable[str] = ()
) -> tuple[tuple[FoundFile, ...], tuple[Skipped, ...]]:
    """The files below the inputs, and what else is there; nothing is opened. Arguments and errors as :func:`walk`."""
    items = tuple(walk(inputs, include=include, exclude=exclude))
    files = tuple(item for item in items if isinstance(item, FoundFile))
    return files, tuple(item for item in items if isinstance(item, Skipped))


def _below(item: FoundFile | Skipped, root: Path) -> str | None:
    """The path below INPUT of what globs and hidden names decide about: files, links, and files that cannot be examined."""
    if isinstance(item, FoundFile):
        return None if item.is_input else item.below
    return item.path.relative_to(root).as_posix() if item.reason in UNSEEN else None


def _is_hidden(item: FoundFile | Skipped, below: str) -> bool:
    """Whether a name on the way is hidden; that of what has gone says nothing: receivers write ``.name`` and rename it."""
    has_gone = isinstance(item, Skipped) and item.reason == Code.CHANGED
    return any(part.startswith(".") for part in below.split("/")[: -1 if has_gone else None])


def _walk_folder(root: Path) -> Iterator[FoundFile | Skipped]:
    # A list instead of recursion: folders may be nested deeper than Python's stack.
    folders = [("", os.fspath(root))]
    while folders:
        below, folder = folders.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:
            yield Skipped(Path(folder), Code.CHANGED, "the folder has gone since it was seen")
            continue
        except OSError:
            yield Skipped(Path(folder), Code.PERMISSION, "the folder cannot be listed")
            continue
        inner = []
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                yield Skipped(Path(entry.path), Code.CHANGED, "the file has gone since its folder was listed")
                continue
            except OSError:
                yield Skipped(Path(entry.path), Code.UNREADABLE_FILE, "the file cannot be examined")
                continue
            if stat.S_ISLNK(info.st_mode):
                yield Skipped(Path(entry.path), Code.SYMLINK, "links are not followed")
            elif stat.S_ISDIR(info.st_mode):
                inner.append((name, entry.path))
            elif stat.S_ISREG(info.st_mode):
                yield FoundFile(Path(entry.path), root, name, info.st_size)
            else:
                yield Skipped(Path(entry.path), Reason.NOT_REGULAR)
        folders.extend(reversed(inner))


def _matches(below: str, patterns: Sequence[str]) -> bool:
    """Whether the path below INPUT, a folder on the way, or the bare name fits one of the patterns."""
    path = PurePosixPath(below)
    names = [below, path.name, *(str(parent) for parent in path.parents if parent.name)]
    return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in names for pattern in patterns)
