"""Batches by number: batch n of size b is made of the samples n b to n b + b - 1, on any process, in any run."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from agseg.spawn import end_with
from agseg.training.loop import Batch
from agseg.training.sample import Sample
from agseg.training.stopping import SIGNALS

_log = logging.getLogger(__name__)

MOST_WORKERS = 8
"""Drawing processes where nobody names a number; docs/own-data.md has what they give."""

AHEAD = 2
"""Batches that every worker has ready or in the making (torch's default)."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it; nothing is written here by name


def workers_for(*, cores: int, processes: int, on_gpu: bool) -> int:
    """How many processes draw samples where nobody says.

    Parameters
    ----------
    cores
        Of the machine.
    processes
        That train on it together and share them.
    on_gpu
        Whether steps are computed elsewhere. If not they use the cores themselves, and one process draws a batch ahead.
    """
    left = cores // max(1, processes) - 1
    return max(0, min(left, MOST_WORKERS if on_gpu else 1))


class DrawBatches:
    """The batches of a data set of draws, made ahead of time by worker processes where there are any.

    Parameters
    ----------
    draws
        Indexable by sample number.
    size
        Samples per batch.
    workers
        Processes that draw; 0 draws when asked. Fewer where shared memory, through which samples come, does not hold theirs.
    """

    def __init__(self, draws: torch.utils.data.Dataset[Sample], *, size: int, workers: int = 0) -> None:
        self.draws, self.size, self.workers = draws, size, workers

    def batches(self, start: int, stop: int, *, stride: int = 1) -> Generator[Batch, None, None]:
        """See :class:`agseg.training.loop.BatchSource`."""
        loader: Any = torch.utils.data.DataLoader(
            self.draws,
            batch_sampler=_Numbers(start, stop, stride, self.size),
            collate_fn=_collate,
            num_workers=self._fitting_workers(start),
            pin_memory=torch.cuda.is_available(),
            # Its seed would come from the global generator, which a resumed run has in another state; draws need none.
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=functools.partial(_begin, os.getpid()),
        )
        yield from loader

    def _fitting_workers(self, start: int) -> int:
        """As many workers as shared memory has room for: in a container it may hold 64 MB, and a worker that fills it dies."""
        if self.workers == 0 or not SHARED_MEMORY.is_dir():
            return self.workers
        sample = self.draws[start * self.size]
        needed = (sample.image.nbytes + sample.labels.nbytes) * self.size * (AHEAD + 1)
        able = min(self.workers, shutil.disk_usage(SHARED_MEMORY).free // needed)
        if able < self.workers:
            _log.warning(
                "processes that draw samples: %d, not %d: shared memory holds no more (docker run --shm-size, or --workers)",
                able,
                self.workers,
            )
        return able


def _begin(parent: int, _worker: int) -> None:
    """End with the run, however that ends.

    A queue signals every process of a job: those that draw go on until the run has its checkpoint; a second signal ends them.
    """
    end_with(parent)

    def first(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, first)


class _Numbers(torch.utils.data.Sampler[list[int]]):
    """Lists of sample numbers, one per batch."""

    def __init__(self, start: int, stop: int, stride: int, size: int) -> None:
        self.batches, self.size = range(start, stop, stride), size

    def __iter__(self) -> Iterator[list[int]]:
        for number in self.batches:
            yield list(range(number * self.size, (number + 1) * self.size))

    def __len__(self) -> int:
        return len(self.batches)


def _collate(samples: Sequence[Sample]) -> Batch:
    known = samples[0].known
    if any(sample.known != known for sample in samples):
        raise ValueError("the samples of a batch must know the same classes")
    return Batch(torch.stack([s.image for s in samples]), torch.stack([s.labels for s in samples]), known)
