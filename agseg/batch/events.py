"""Progress events of a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agseg.report import StudyReport


class EventKind(StrEnum):
    """What happened."""

    PLANNED = "planned"
    """Discovery and the decisions are made; ``total`` is known, ``done`` counts what needs no work."""
    STARTED = "started"
    """A reader has taken the study."""
    STAGE = "stage"
    """The study has reached ``stage``."""
    FINISHED = "finished"
    """The study has its ``report``."""


@dataclass(frozen=True)
class BatchEvent:
    """One step of a run.

    Parameters
    ----------
    kind
        See :class:`EventKind`.
    done, total
        Studies with a record so far, and studies of this run.
    study
        The study's path below INPUT; empty for ``planned``.
    stage
        ``"read"``, ``"predict"``, ... for ``stage``.
    report
        The study's record, for ``finished``.
    """

    kind: EventKind
    done: int
    total: int
    study: str = ""
    stage: str = ""
    report: StudyReport | None = None
