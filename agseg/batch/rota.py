"""Which study is given to a cluster's workers next, and when one is given up. Knows studies, not workers.

When a worker dies, its studies go to others. Which of them was to blame cannot be seen, so one whose workers died twice is
kept for the end and gets a worker to itself; if that dies too, the study has failed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from agseg.batch.job import StudyTask
from agseg.batch.outcome import Failure
from agseg.errors import Code
from agseg.report import StudyStatus

__all__ = ["Rota"]

ATTEMPTS = 6
"""A study that was given out this often without an answer has failed."""

SHARED_DEATHS = 2
"""A study that lost this many workers, which held others too, is tried alone."""


class Rota:
    """The studies that wait: those anybody may take beside others, and the suspects, each for a worker of its own."""

    def __init__(self) -> None:
        self.pending: deque[StudyTask] = deque()
        self.suspects: deque[StudyTask] = deque()
        self._attempts: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.pending) + len(self.suspects)

    @property
    def left(self) -> tuple[StudyTask, ...]:
        """All that wait, suspects last."""
        return (*self.pending, *self.suspects)

    @property
    def given(self) -> int:
        """How often a study was given out, all of them together."""
        return self._attempts.total()

    def add(self, tasks: Iterable[StudyTask]) -> None:
        """Let studies wait, behind those that do."""
        self.pending.extend(tasks)

    def take(self, *, alone: bool = False) -> StudyTask:
        """The next study, or the next suspect."""
        task = (self.suspects if alone else self.pending).popleft()
        self._attempts[task.output] += 1
        return task

    def again(self, task: StudyTask) -> Failure | None:
        """It came back without an answer: it waits again, or has failed if that was so too often."""
        if self._attempts[task.output] < ATTEMPTS:
            self.pending.append(task)
            return None
        return _given_up(f"it was given out {ATTEMPTS} times and never came back")

    def lost(self, task: StudyTask, *, alone: bool) -> Failure | None:
        """Its worker died: another one takes the study, unless the study is what kills them."""
        self._deaths[task.output] += 1
        if alone:
            return _given_up(f"each of the {self._deaths[task.output]} workers that it was given to died")
        if self._deaths[task.output] >= SHARED_DEATHS:
            self.suspects.append(task)
        else:
            self.pending.appendleft(task)
        return None


def _given_up(message: str) -> Failure:
    return Failure(StudyStatus.FAILED, Code.CRASHED, message)
