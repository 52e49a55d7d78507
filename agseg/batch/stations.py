"""Queues between processes: studies that are read but not yet in the model, segmented but not yet with the writer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from agseg.batch.job import StudyTask


@dataclass(frozen=True)
class Ready:
    """A study that has been read.

    Parameters
    ----------
    task
        The study, with the seconds that reading took.
    header, voxels
        From :func:`agseg.batch.handover.pack`; the descriptor is open.
    left_s
        How much of the study's time is left.
    """

    task: StudyTask
    header: dict[str, Any]
    voxels: int
    left_s: float

    def copy(self) -> Ready:
        """The same with a descriptor of its own."""
        return Ready(self.task, self.header, os.dup(self.voxels), self.left_s)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.voxels)


@dataclass(frozen=True)
class Drafted:
    """A study that has been segmented.

    Parameters
    ----------
    ready
        What was read; its descriptor is open.
    layout, labels
        From :func:`agseg.batch.handover.pack_array`; the descriptor is open.
    facts
        See :class:`agseg.batch.draft.Draft`.
    left_s
        How much of the study's time is left.
    """

    ready: Ready
    layout: dict[str, Any]
    labels: int
    facts: dict[str, Any]
    left_s: float

    def close(self) -> None:
        """Give the memory back."""
        self.ready.close()
        os.close(self.labels)
