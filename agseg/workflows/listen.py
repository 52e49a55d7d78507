"""``agseg listen``: images that archives and routers send, or that others put into a folder, are segmented as they come.

The port only writes files; each time a study has become quiet, a run of ``agseg segment`` follows, in processes of its own as
always, and a push. What fails there is told, and the port stays open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from agseg.batch.output import claim_output
from agseg.batch.signals import noting_signals
from agseg.errors import AgsegError, ExitCode, UsageError
from agseg.io.finished import load_record
from agseg.io.pacs.contexts import IMAGE_SYNTAXES, storage_classes
from agseg.io.pacs.inbox import Inbox
from agseg.io.pacs.listener import Listener
from agseg.io.walk import walk
from agseg.report import StudyStatus
from agseg.workflows.night import NightPlan, run_night
from agseg.workflows.night_record import NightReport
from agseg.workflows.segment import check_request
from agseg.workflows.site import ListenSite

LOOK_S = 1.0
"""How often is looked for studies that have become quiet."""

RETRY_S = 60.0
"""After a run that failed as a whole (a full disk, a locked output), the next one waits so long."""

GIB = 1 << 30


@dataclass(frozen=True)
class ListenPlan:
    """What is listened to, and what follows.

    Parameters
    ----------
    site
        Port, senders, bounds.
    inbox
        Where series appear, below ``night.incoming``.
    night
        Segmentation and push; it pulls nothing.
    quiet_s, keep_s
        See :class:`agseg.workflows.site.ListenSite`.
    """

    site: ListenSite
    inbox: Path
    night: NightPlan
    quiet_s: float
    keep_s: float | None = None


def run_listen(
    plan: ListenPlan,
    *,
    on_ready: Callable[[int | None], None] | None = None,
    on_run: Callable[[NightReport | AgsegError], None] | None = None,
    stop: threading.Event | None = None,
) -> ExitCode:
    """Listen until a signal comes, or ``stop`` is set.

    Parameters
    ----------
    on_ready
        Told the port once it is open, None without one.
    on_run
        Told of each run, or of the error that ended it.

    Raises
    ------
    UsageError, PacsError, OutputError, LockedError
        At the start: if it could not work at all.
    """
    stop = stop or threading.Event()
    ended: list[ExitCode] = []

    def note(code: ExitCode) -> None:
        ended.append(code)
        stop.set()

    check_request(plan.night.request)
    watch = plan.site.watch
    if watch is not None and not watch.is_dir():
        # Later it may be gone for a moment, a share that is not mounted; at the start it is a slip of the pen.
        raise UsageError("the folder to watch is not there", path=watch, hint="Make it, or correct watch: in the site's file.")
    tell = on_run or (lambda _report: None)
    with ExitStack() as held:
        held.enter_context(claim_output(plan.inbox))
        inbox = Inbox(plan.inbox, quiet_s=plan.quiet_s, most_bytes=int(plan.site.disk_gb * GIB))
        port = None if plan.site.port is None else held.enter_context(_listener(plan, inbox)).port
        held.enter_context(noting_signals(note))
        if on_ready is not None:
            on_ready(port)
        watched = _Watched(plan.site.watch, plan.quiet_s)
        waiting, not_before_s = True, 0.0  # a run at the start takes up what the last one left
        while not stop.is_set():
            with suppress(AgsegError):
                waiting = bool(inbox.show_complete()) or waiting
            waiting = watched.has_news() or waiting
            if waiting and time.monotonic() >= not_before_s:
                outcome = _run(plan)
                tell(outcome)
                if isinstance(outcome, NightReport) and outcome.caught is not None:
                    return outcome.caught
                waiting = isinstance(outcome, AgsegError)
                not_before_s = time.monotonic() + RETRY_S if waiting else 0.0
                inbox.make_room(_is_done(plan), older_than_s=plan.keep_s)
            stop.wait(LOOK_S)
    return ended[0] if ended else ExitCode.OK


def _run(plan: ListenPlan) -> NightReport | AgsegError:
    try:
        return run_night(plan.night)
    except AgsegError as error:
        return error


def _listener(plan: ListenPlan, inbox: Inbox) -> Listener:
    site, limits = plan.site, plan.site.limits()
    return Listener(
        site.port or 0,
        host=site.host,
        aet=site.aet,
        senders=site.senders(),
        contexts=[(storage, IMAGE_SYNTAXES) for storage in storage_classes()],
        take=lambda received: inbox.take(received.content),
        tls=None if site.tls_cert is None else limits.server_context(),
        silence_s=limits.timeout_s,
    )


def _is_done(plan: ListenPlan) -> Callable[[str], bool]:
    below = plan.inbox.relative_to(plan.night.incoming)
    results = plan.night.request.output / below

    def is_done(name: str) -> bool:
        record = load_record(results / name)
        return record is not None and record.get("status") == StudyStatus.DONE

    return is_done


class _Watched:
    """A folder that others write into: there is news once something has changed, and then stayed as it is for a while."""

    def __init__(self, folder: Path | None, quiet_s: float) -> None:
        self._folder, self._quiet_s = folder, quiet_s
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self._changed_s = time.monotonic()
        self._is_told = True

    def has_news(self) -> bool:
        if self._folder is None:
            return False
        found = self._look()
        if found != self._seen:
            is_first = self._seen is None
            self._seen, self._changed_s = found, time.monotonic()
            self._is_told = is_first and not found
        if self._is_told or time.monotonic() - self._changed_s < self._quiet_s:
            return False
        self._is_told = True
        return True

    def _look(self) -> frozenset[tuple[str, int, int]]:
        found = set()
        with suppress(UsageError):  # the folder is not there for the moment
            for item in walk([self._folder] if self._folder is not None else []):
                with suppress(OSError):
                    state = item.path.lstat()
                    found.add((str(item.path), state.st_size, state.st_mtime_ns))
        return frozenset(found)
