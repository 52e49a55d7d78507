"""What a worker of a cluster must see before it gets work: the run's own folders and files, as the same user."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agseg import __version__
from agseg.batch.arrival import check_unchanged
from agseg.batch.job import StudyTask
from agseg.batch.output import temporary_name
from agseg.errors import AgsegError


@dataclass(frozen=True)
class Probe:
    """What a worker must see: a marker in the output folder, with its content, and the files of one study."""

    marker: Path
    token: str
    sample: StudyTask
    version: str = __version__

    def problem(self) -> str | None:
        """Why this process cannot take part, or None."""
        if self.version != __version__:
            return f"it runs agseg {__version__}, this run agseg {self.version}"
        try:
            if self.marker.read_text(encoding="ascii") != self.token:
                return "its folder of the output's name is another folder"
            beside = self.marker.parent / temporary_name()
            beside.mkdir(mode=0o700)
            beside.rmdir()
        except OSError as error:
            return f"it cannot use the output folder ({type(error).__name__})"
        try:
            check_unchanged(self.sample.study, self.sample.states)
        except AgsegError:
            return "it does not see the input files as this process does"
        return None


@contextmanager
def laid_out(sample: StudyTask) -> Iterator[Probe]:
    """A probe whose marker exists as long as the context."""
    marker, token = sample.root / temporary_name(), secrets.token_hex(16)
    marker.write_text(token, encoding="ascii")
    try:
        yield Probe(marker, token, sample)
    finally:
        marker.unlink(missing_ok=True)
