"""``agseg night``: pull, segment and push as one run, with one lock, one record and one exit code.

Each step leaves what is complete and nothing else, so that a night that is killed anywhere is taken up by the next one: pull
fetches what has not come, segment does what is not done, push sends what the archive has not confirmed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agseg.batch import BatchEvent
from agseg.batch.output import Output, claim_output
from agseg.batch.signals import noting_signals
from agseg.errors import AgsegError, Code, ExitCode, OutputError
from agseg.io.finished import load_record
from agseg.io.names import spelled_out
from agseg.io.pacs.archive import Archive
from agseg.io.pacs.query import PacsQuery
from agseg.report import StudyStatus
from agseg.workflows.night_record import NightReport, StepError, failures_of, known_failures, write_night
from agseg.workflows.pacs import Progress
from agseg.workflows.pull import pull
from agseg.workflows.push import push
from agseg.workflows.segment import SegmentRequest, check_request, segment

STOPS = (ExitCode.TERMINATED, ExitCode.INTERRUPTED)


@dataclass(frozen=True)
class NightArchive:
    """An archive of the night.

    Parameters
    ----------
    open
        Makes the connection.
    query
        What is fetched, None if nothing is.
    sends
        Whether results of its images go back to it.
    asks
        Whether it is asked what it holds before something is sent; a router that only stores cannot be.
    is_source
        Whether all its results belong to studies that it has: then nothing goes to a study that it has no more.
    """

    open: Callable[[], Archive]
    query: PacsQuery | None
    sends: bool = True
    asks: bool = True
    is_source: bool = True


@dataclass(frozen=True)
class NightPlan:
    """What a night does.

    Parameters
    ----------
    archives
        By name, in order; images of each go into a folder of that name below ``incoming``, and so do their results below the
        output.
    incoming
        Where images arrive: the input of ``request``.
    request
        The segmentation.
    keep_s
        Images of finished studies that have been there for longer are removed; None keeps them.
    """

    archives: Mapping[str, NightArchive]
    incoming: Path
    request: SegmentRequest
    keep_s: float | None = None


class _Caught(BaseException):
    """A signal came while images or results were moving: what is half there is hidden, so it may end at once."""


def run_night(
    plan: NightPlan,
    *,
    on_event: Callable[[BatchEvent], None] | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> NightReport:
    """Do a night. A step that fails is in the report; the other steps are done all the same, if there is somewhere to write.

    Parameters
    ----------
    on_progress
        Gives what is told of pulling from, and pushing to, an archive of this name.

    Raises
    ------
    UsageError, OutputError, LockedError
        If the output folder cannot be written to, another run holds it, or the plan contradicts itself.
    """
    report = NightReport(started=_now())
    tell = on_progress or (lambda _name: lambda *_: None)
    root = plan.request.output.absolute()
    check_request(plan.request)
    with claim_output(root, inputs=(plan.incoming,)) as output:
        known = known_failures(output.root)
        plan.incoming.mkdir(parents=True, exist_ok=True)
        with suppress(_Caught), _ending_at_a_signal(report):
            _pull_all(plan, report, tell)
            with _step(report, "segment"):
                report.run = segment(plan.request, on_event=on_event, output=output)
            if report.run is not None and report.run.exit_code in STOPS:
                report.caught = report.run.exit_code
            elif not _cannot_write(report):
                _push_all(plan, report, tell, output)
                report.removed = _remove_old(plan, output)
        report.finished = _now()
        report.failures = failures_of(report, known, root=output.root)
        output.release_reserve()
        write_night(report, output.root)
    return report


def _pull_all(plan: NightPlan, report: NightReport, tell: Callable[[str], Progress]) -> None:
    for name, archive in plan.archives.items():
        if archive.query is None:
            continue
        folders = [plan.incoming / other for other in plan.archives if other != name]
        with _step(report, f"pull {name}"):
            report.pulled[name] = pull(
                archive.open(), query=archive.query, output=plan.incoming / name, elsewhere=folders, on_progress=tell(name)
            )


def _push_all(plan: NightPlan, report: NightReport, tell: Callable[[str], Progress], output: Output) -> None:
    for name, archive in plan.archives.items():
        folder = output.root / name
        if archive.sends and folder.is_dir():
            with _step(report, f"push {name}"):
                report.pushed[name] = push(
                    archive.open(),
                    paths=[folder],
                    only_known_studies=archive.is_source and archive.asks,
                    only_unconfirmed=not archive.is_source,
                    asks=archive.asks,
                    on_progress=tell(name),
                )


@contextmanager
def _step(report: NightReport, name: str) -> Iterator[None]:
    """A step whose error does not end the night; a full disk is noted too, and ends what writes."""
    try:
        yield
    except AgsegError as error:
        where = "" if error.path is None else f"{spelled_out(str(error.path))}: "
        code = str(error.code or Code.INTERNAL)
        report.errors.append(StepError(name, code, where + error.sentence(), error.exit_code, error.hint))


def _cannot_write(report: NightReport) -> bool:
    return any(error.exit_code is OutputError.exit_code for error in report.errors)


@contextmanager
def _ending_at_a_signal(report: NightReport) -> Iterator[None]:
    """While images or results move, SIGTERM and SIGINT end the step at once; ``segment`` has handlers of its own."""

    def note(code: ExitCode) -> None:
        report.caught = code
        raise _Caught

    with noting_signals(note):
        yield


def _remove_old(plan: NightPlan, output: Output) -> int:
    """Remove images that have been here for long and whose result is finished; returns how many series."""
    if plan.keep_s is None:
        return 0
    removed, oldest_s = 0, time.time() - plan.keep_s
    for name in plan.archives:
        for folder in sorted((plan.incoming / name).glob("*/*")):
            record = load_record(output.root / folder.relative_to(plan.incoming))
            is_done = record is not None and record.get("status") == StudyStatus.DONE
            if is_done and not folder.is_symlink() and folder.is_dir() and folder.stat().st_mtime < oldest_s:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    folder.parent.rmdir()
                removed += 1
    return removed


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
