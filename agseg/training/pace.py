"""Where the time of a training goes: samples per second, and the share of it that the device waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

STARVED = 0.1
"""Share of waiting from which a run is worth more workers."""


class _Images(Protocol):
    """Anything with a block of images."""

    @property
    def image(self) -> Tensor: ...


B = TypeVar("B", bound=_Images)


@dataclass(frozen=True)
class Speed:
    """How fast steps were: validation and checkpoints do not count.

    Parameters
    ----------
    samples_per_second
        Of all processes together.
    wait_share
        Part of the steps' time, 0 to 1, that this process waited for samples.
    """

    samples_per_second: float
    wait_share: float


STANDING = Speed(0.0, 0.0)
"""Of no step."""


@dataclass
class Pace:
    """A stopwatch for steps (s) and for what they wait for.

    Parameters
    ----------
    processes
        That train together, each with as many samples.
    """

    processes: int = 1
    spent_s: float = 0.0
    waited_s: float = 0.0
    samples: int = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        began = time.perf_counter()
        yield
        self.spent_s += time.perf_counter() - began

    def next_of(self, stream: Iterator[B]) -> B:
        """The next batch, and how long it took to come."""
        began = time.perf_counter()
        batch = next(stream)
        self.waited_s += time.perf_counter() - began
        self.samples += len(batch.image)
        return batch

    def told(self) -> Speed:
        """The speed since this was last asked."""
        spent = max(self.spent_s, 1e-9)
        speed = Speed(self.samples * self.processes / spent, min(1.0, self.waited_s / spent))
        self.spent_s = self.waited_s = 0.0
        self.samples = 0
        return speed
