"""Batches by number: batch n of size b is made of the samples n b to n b + b - 1, on any process, in any run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from agseg.training.loop import Batch
from agseg.training.sample import Sample

__all__ = ["DrawBatches"]


class DrawBatches:
    """The batches of a data set of draws, made ahead of time by worker processes where there are any.

    Parameters
    ----------
    draws
        Indexable by sample number.
    size
        Samples per batch.
    workers
        Processes that draw; 0 draws when asked.
    """

    def __init__(self, draws: torch.utils.data.Dataset[Sample], *, size: int, workers: int = 0) -> None:
        self.draws, self.size, self.workers = draws, size, workers

    def batches(self, start: int, stop: int, *, stride: int = 1) -> Iterator[Batch]:
        """See :class:`agseg.training.loop.BatchSource`."""
        loader: Any = torch.utils.data.DataLoader(
            self.draws,
            batch_sampler=_Numbers(start, stop, stride, self.size),
            collate_fn=_collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # Its seed would come from the global generator, which a resumed run has in another state; draws need none.
            generator=torch.Generator().manual_seed(0),
        )
        yield from loader


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
