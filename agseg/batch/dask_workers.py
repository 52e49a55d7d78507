"""Who works for a run on a cluster: the workers that see its folders, as the scheduler and they themselves tell."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from agseg.batch.outcome import Fault
from agseg.batch.run_aborted import RunAborted
from agseg.errors import Code, UsageError
from agseg.report import StudyStatus

GPU = "GPU"
"""The resource that a worker with a GPU announces: ``dask worker ... --resources GPU=1``."""

_LOOK_EVERY_S = 1.0

_NO_WORKER_S = 600.0
"""How long a run waits in the middle for a worker to come back."""

_log = logging.getLogger("agseg.batch.dask")


class DaskWorkers:
    """The workers of one run.

    Parameters
    ----------
    use_gpus
        Whether, where some workers announce a GPU, only those get studies.
    """

    def __init__(self, *, use_gpus: bool) -> None:
        self.fit: set[str] = set()
        """Addresses of those that take part."""
        self.unfit: dict[str, RunAborted | UsageError] = {}
        """Why others do not, or no longer."""
        self.gpus: set[str] = set()
        """Addresses of those that announce a GPU."""
        self.used: set[str] = set()
        """Addresses of those that finished a study."""
        self._use_gpus = use_gpus
        self._looked, self._last_fit = 0.0, time.monotonic()
        self._seen: dict[str, set[str]] = {}

    @property
    def eligible(self) -> set[str]:
        """Those that may get a study."""
        return self.fit & self.gpus if self._use_gpus and self.gpus else self.fit

    def look(self, client: Any) -> set[str]:
        """Addresses of all that are there, as the scheduler knows it; empty if it does not answer."""
        self._looked = time.monotonic()
        known: dict[str, Any] = {}
        # A scheduler that does not answer now may do so the next time; the client says when it is gone.
        with suppress(OSError):
            known = client.scheduler_info(n_workers=-1)["workers"]
        self.gpus = {address for address, told in known.items() if (told.get("resources") or {}).get(GPU, 0) >= 1}
        self.fit &= known.keys()
        return set(known)

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._looked > _LOOK_EVERY_S

    def receive(self, event: dict[str, Any]) -> None:
        """Take what a worker tells: that it takes part, or why it does not, or no longer.

        Raises
        ------
        RunAborted
            If the output cannot be written to: the folder is everybody's, no other worker would fare better.
        """
        worker, why = event["worker"], _why(event)
        if why is None:
            self.fit.add(worker)
            return
        self.fit.discard(worker)
        self.unfit[worker] = why
        if isinstance(why, RunAborted) and why.blame is Fault.OUTPUT:
            raise why
        _log.warning("a worker takes no further part: %s", why)

    def have_all_told(self, known: set[str]) -> bool:
        """Whether each of these workers has said whether it takes part."""
        return known <= self.fit | set(self.unfit)

    def check(self) -> None:
        """End the run if nobody is left.

        Raises
        ------
        RunAborted, UsageError
            Why there is nobody.
        """
        if self.eligible:
            self._last_fit = time.monotonic()
            return
        for why in self.unfit.values():
            raise why if isinstance(why, RunAborted) or not self.used else nobody_left("no worker can continue")
        if time.monotonic() - self._last_fit > _NO_WORKER_S:
            raise nobody_left("the cluster has no worker left")

    def note(self, worker: str, environment: dict[str, Any]) -> None:
        """A worker has finished a study in this environment."""
        self.used.add(worker)
        for name, value in environment.items():
            self._seen.setdefault(name, set()).add(str(value))

    @property
    def environment(self) -> dict[str, str]:
        """The environment as if it were one machine: where workers differ, all that was found."""
        return {name: ", ".join(sorted(values)) for name, values in sorted(self._seen.items())}


def nobody_left(why: str) -> RunAborted:
    """The end of a run that has no workers; its studies are left for the next."""
    return RunAborted(Code.CRASHED, f"{why}; the next run takes this study", status=StudyStatus.DEFERRED, blame=Fault.BUG)


def cannot_take_part(worker: str, why: str) -> UsageError:
    """The error of a worker that does not see what the run's process sees."""
    return UsageError(
        f"{worker} cannot take part: {why}",
        hint="Every worker needs agseg, and the input and output folders under the same paths, as the same user.",
    )


def _why(event: dict[str, Any]) -> RunAborted | UsageError | None:
    """Why the worker of this event takes no part, if so."""
    if "stop" in event:
        return RunAborted.from_dict(event["stop"])
    if "usage" in event:
        told = event["usage"]
        return UsageError(told["message"], code=Code(told["code"]), hint=told["hint"])
    return None if event["unfit"] is None else cannot_take_part(f"the worker {event['worker']}", event["unfit"])
