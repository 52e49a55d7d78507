"""The workers of a Dask cluster as a run sees them: who may take part, and who is free."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from agseg.batch.node import Probe, look_around
from agseg.batch.stop import Stop
from agseg.errors import UsageError

__all__ = ["Workforce", "ask"]

_LOOK_EVERY_S = 1.0
_WORKERS_PER_LOOK_S = 100
"""With many workers it looks more seldom: each look fetches something about every one of them."""

_LOOK_S = 30.0
"""How long a worker may take to say what it sees (it may be importing); it is asked again later."""

_GPU = "GPU"
"""The resource that a worker with a GPU announces: ``dask worker ... --resources GPU=1``."""

_SHARES = 1 << 20
"""A share of a GPU is a multiple of 1 / this, so that shares add up exactly."""


def ask(client: Any, function: Callable[..., Any], *args: Any, workers: list[str] | None, timeout_s: float) -> dict[str, Any]:
    """Run a function on workers beside their tasks; what each answered in time, an exception where it raised one."""
    answers: dict[str, Any] = {}

    def run() -> None:
        try:
            answers.update(client.run(function, *args, workers=workers, on_error="return"))
        except Exception as error:
            # A worker that leaves in this moment; the scheduler tells soon.
            answers.update(dict.fromkeys(workers or (), error))

    # A worker that hangs must not hold this process: the thread is left behind.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return {} if thread.is_alive() else answers


class Workforce:
    """Who may take part.

    Parameters
    ----------
    client
        The ``distributed.Client``.
    probe
        What a worker must see.
    ahead
        Studies that a worker may hold beside the one in its model.
    use_gpus
        Where workers announce GPUs, only those take part.
    """

    def __init__(self, client: Any, probe: Probe, *, ahead: int, use_gpus: bool) -> None:
        self._client, self._probe = client, probe
        self._slots, self._use_gpus = ahead + 1, use_gpus
        self._fit: set[str] = set()
        self._there: set[str] = set()
        self._gpus = False
        self._looked = 0.0
        self._last_fit = time.monotonic()
        self.unfit: dict[str, Stop | UsageError] = {}
        """Workers that cannot take part, and why."""

    def look(self, *, at_once: bool = False) -> bool:
        """See who is there (every second or so, unless at once); whether anybody may take part."""
        now = time.monotonic()
        every_s = _LOOK_EVERY_S + len(self._there) / _WORKERS_PER_LOOK_S
        if at_once or now - self._looked > every_s:
            self._looked = now
            # A scheduler that does not answer now may do so the next time; the client says when it is gone.
            with suppress(OSError):
                self._refresh(self._client.scheduler_info(n_workers=-1)["workers"])
        if self._fit:
            self._last_fit = now
        return bool(self._fit)

    @property
    def alone_s(self) -> float:
        """Seconds since there was somebody."""
        return time.monotonic() - self._last_fit

    def is_there(self, address: str) -> bool:
        """Whether the scheduler knows this worker, as of the last look."""
        return address in self._there

    def free(self, load: Mapping[str, float]) -> str | None:
        """The worker with the fewest studies, if it may have one more."""
        address = min(sorted(self._fit), key=lambda each: load.get(each, 0), default=None)
        return None if address is None or load.get(address, 0) >= self._slots else address

    def resources(self) -> dict[str, float]:
        """What a task asks of its worker: all studies that it holds share one GPU."""
        return {_GPU: math.floor(_SHARES / self._slots) / _SHARES} if self._gpus else {}

    def exclude(self, address: str, why: Stop | UsageError) -> None:
        """Give this worker nothing more."""
        self._fit.discard(address)
        self.unfit[address] = why

    def _refresh(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        with_gpu = {address for address, told in known.items() if (told.get("resources") or {}).get(_GPU, 0) >= 1}
        self._gpus = self._use_gpus and bool(with_gpu)
        there = with_gpu if self._gpus else set(known)
        self._there = set(known)
        self._fit &= there
        self.unfit = {address: why for address, why in self.unfit.items() if address in there}
        new = sorted(there - self._fit - self.unfit.keys())
        if not new:
            return
        for address, answer in ask(self._client, look_around, self._probe, workers=new, timeout_s=_LOOK_S).items():
            if answer is None:
                self._fit.add(address)
            elif isinstance(answer, str):
                self.exclude(address, _cannot(address, answer))
            elif isinstance(answer, ImportError | AttributeError):
                self.exclude(address, _cannot(address, "it does not have this version of agseg"))


def _cannot(address: str, why: str) -> UsageError:
    return UsageError(
        f"the worker {address} cannot take part: {why}",
        hint="Every worker needs agseg, and the input and output folders under the same paths, as the same user.",
    )
