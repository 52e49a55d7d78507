"""What does a run's studies: the processes of this machine (:mod:`agseg.batch.supervise`), or a Dask cluster.

A run needs only this much of either, so that discovery, decisions, records and exit codes are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from agseg.batch.job import BatchJob, StudyTask
from agseg.batch.outcome import Fault
from agseg.batch.run_aborted import RunAborted
from agseg.report import StudyReport


class Executor(Protocol):
    """Does studies and says how each ended."""

    environment: dict[str, Any]

    def prepare(self) -> None:
        """Begin what takes long before the studies are known: a model process imports while they are being found."""
        ...

    def close(self) -> None:
        """End what :meth:`prepare` began, where no study is to be done; :meth:`run` does so by itself."""
        ...

    def run(self, tasks: Iterable[StudyTask]) -> tuple[RunAborted | None, tuple[StudyTask, ...]]:
        """Do the studies.

        Returns
        -------
        stop
            Why the run ended early, or None.
        left
            The studies that have no record then.
        """
        ...


class ExecutorFactory(Protocol):
    """Makes the executor of one run; :class:`agseg.batch.supervise.Supervisor` is one."""

    def __call__(
        self,
        job: BatchJob,
        *,
        should_stop: Callable[[], RunAborted | None],
        on_stage: Callable[[StudyTask, str], None],
        on_end: Callable[[StudyTask, StudyReport, Fault], None],
    ) -> Executor:
        """See :class:`agseg.batch.supervise.Supervisor` for the parameters."""
        ...
