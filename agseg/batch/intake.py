"""Access to the input files through a child process; the parent only walks the folders.

Discovery, fingerprints and identifiers are asked of it. A file at which it dies, hangs or grows is refused with that reason,
and the next child goes on behind it.
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agseg.batch.arrival import FileState
from agseg.batch.calls import CallLimits, Calls, Lost
from agseg.batch.fingerprint import input_fingerprint
from agseg.batch.found import discovery_from_json, discovery_to_json
from agseg.batch.memory import machine_memory_bytes, virtual_bytes
from agseg.errors import AgsegError, Code, InputError
from agseg.io.walk import FoundFile, listed
from agseg.io.watch import NO_FILE, Watch
from agseg.study import Discovery, Rejected, Skipped

FILE_CPU_S = 5.0
"""Processor seconds for looking at one file. A header takes a thousandth of one; a label map is read to its end."""

FINDING_BYTES = 1 << 30
BYTES_PER_FILE = 4096
"""Memory for finding studies, beside what the process takes at its start: for one file in hand, and for each listed."""

ANSWER_S = 600.0
"""Seconds for an answer that is about one study or one file."""

IDENTIFIERS_S = 30.0
"""Seconds for whose a file is: records without it are complete, so it is not waited for."""

_FRUITLESS = 3
"""A child that ends this often between two files will not come through at all."""

_log = logging.getLogger(__name__)


class Intake:
    """What the parent asks about input files; a context that ends its child.

    Parameters
    ----------
    memory_bytes
        What the child may use for the largest of its tasks; by default what finding studies takes.
    debug
        Let the child's tracebacks through to stderr. They may quote headers.
    """

    def __init__(self, *, memory_bytes: int | None = None, debug: bool = False) -> None:
        size = memory_bytes or min(machine_memory_bytes(), 2 * FINDING_BYTES)
        self._calls = Calls(CallLimits(size), debug=debug)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._calls.close()

    def start(self) -> None:
        """Start the child now, so that it is ready when it is asked."""
        self._calls.start(first="agseg.io.discover")

    def discover(
        self,
        inputs: Sequence[Path],
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        modalities: Sequence[str] = ("CT",),
    ) -> Discovery:
        """Find the studies below the inputs, as :func:`agseg.io.discover.discover` does.

        Raises
        ------
        UsageError
            If an input does not exist.
        AgsegError
            If no child comes through.
        """
        self.start()
        files, skipped = listed(inputs, include=include, exclude=exclude)
        told = self.examine(_found, files, skipped, tuple(modalities))
        try:
            return discovery_from_json(told, files, skipped)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise AgsegError("the process that finds studies gave no answer that makes sense", code=Code.CRASHED) from error

    def find_clips(self, inputs: Iterable[Path]) -> Discovery:
        """The ultrasound clips below the inputs, as :func:`agseg.io.video.clips.find_clips` finds them."""
        from agseg.io.video.clips import find_clips

        self.start()
        return find_clips(inputs, kinds_of=self._clip_kinds)

    def _clip_kinds(self, paths: Sequence[Path]) -> list[str]:
        told = self.examine(_kinds, paths) if paths else []
        if not isinstance(told, list) or len(told) != len(paths):
            raise AgsegError("the process that finds clips gave no answer that makes sense", code=Code.CRASHED)
        return [str(kind) for kind in told]

    def examine(self, function: Callable[..., Any], files: Sequence[Any], *arguments: Any) -> Any:
        """What a function makes of listed files: ``function(files, *arguments, lost, note=note)``, in the child.

        ``lost`` has the numbers of files that ended an earlier child, with the reason; the function examines them no more.
        """
        lost: dict[int, Rejected] = {}
        fruitless = 0
        while True:
            try:
                return self._calls.ask(function, files, *arguments, lost)
            except Lost as end:
                if end.number == NO_FILE or end.number in lost:
                    fruitless += 1
                    if fruitless == _FRUITLESS:
                        raise AgsegError(f"the input cannot be looked through: {end.message}", code=end.code) from None
                else:
                    _log.debug("the child ended at file %d: %s", end.number, end.message)
                    lost[end.number] = Rejected(end.code, end.message)

    def ask(self, function: Callable[..., Any], *arguments: Any, limit_s: float = ANSWER_S) -> Any:
        """What a function gives that is about one study: ``function(*arguments, note=note)``, in the child.

        Raises
        ------
        InputError
            ``E_CRASHED``, ``E_TIMEOUT`` or ``E_OUT_OF_MEMORY`` if the child ends before it answers.
        """
        try:
            return self._calls.ask(function, *arguments, limit_s=limit_s)
        except Lost as end:
            raise InputError(end.message, code=end.code) from None
        except AgsegError as error:
            # Whatever the files made it raise is about them.
            raise InputError(error.message, code=error.code) from None

    def fingerprint(self, files: tuple[Path, ...], states: tuple[FileState, ...]) -> str | None:
        """:func:`~agseg.batch.fingerprint.input_fingerprint`; None if a file cannot be read."""
        try:
            told = self.ask(_fingerprint, files, states)
        except InputError:
            return None
        return told if isinstance(told, str) else None

    def identifiers(self, path: Path) -> dict[str, str]:
        """What names the patient and the study in a file's header; empty where it cannot be read."""
        try:
            told = self.ask(_identifiers, path, limit_s=IDENTIFIERS_S)
        except InputError:
            return {}
        return {str(name): str(value) for name, value in told.items()} if isinstance(told, dict) else {}


# -- in the child: what opens files is imported there alone ----------------------------------------------------------------


def _found(
    files: Sequence[FoundFile],
    skipped: Sequence[Skipped],
    modalities: tuple[str, ...],
    lost: dict[int, Rejected],
    *,
    note: Callable[[int], None],
) -> dict[str, Any]:
    from agseg.io.discover import find_studies

    with memory_limited(FINDING_BYTES + BYTES_PER_FILE * len(files)):
        found = find_studies(files, skipped, modalities=modalities, watch=Watch(note, lost, FILE_CPU_S))
    return discovery_to_json(found, files)


def _kinds(paths: Sequence[Path], lost: dict[int, Rejected], *, note: Callable[[int], None]) -> list[str]:
    from agseg.io.video.clips import clip_kinds

    with memory_limited(FINDING_BYTES + BYTES_PER_FILE * len(paths)):
        return clip_kinds(paths, watch=Watch(note, lost, FILE_CPU_S))


def _fingerprint(files: tuple[Path, ...], states: tuple[FileState, ...], *, note: Callable[[int], None]) -> str | None:
    try:
        return input_fingerprint(files, states)
    except (OSError, InputError):
        return None


def _identifiers(path: Path, *, note: Callable[[int], None]) -> dict[str, str]:
    from agseg.io.dicom.identifiers import read_identifiers

    with memory_limited(FINDING_BYTES):
        return read_identifiers(path)


@contextmanager
def memory_limited(more_bytes: int) -> Iterator[None]:
    """Let this process map no more than so many bytes beside what it has mapped; back to its own limit in the end."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = virtual_bytes(os.getpid())
    if mapped is None:  # where the system does not say, the parent's watch over resident memory remains
        yield
        return
    limit = mapped + more_bytes
    allowed = [other for other in (before, hard) if other != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *allowed]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
