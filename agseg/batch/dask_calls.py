"""Talking to a Dask cluster within limits of time: the events of a run, and calls that every worker must answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from agseg.batch.dask_workers import nobody_left

_ECHO, _ECHO_S = "echo", 0.05
"""What the run says to itself until it hears it, and how often (s)."""


class RunEvents:
    """What is said to a run, by its workers and by the futures of its studies, in the order in which it arrives.

    Parameters
    ----------
    topic
        The run's own, under which Dask carries events.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def subscribe(self, client: Any, *, within_s: float) -> None:
        """Hear the run's events. Returns once the scheduler sends them: what workers say before that is lost.

        Raises
        ------
        UsageError
            If the scheduler does not answer in time.
        """
        heard = threading.Event()

        def receive(event: tuple[float, Any]) -> None:
            if event[1] == _ECHO:
                heard.set()
            else:
                self.put(event[1])

        client.subscribe_topic(self.topic, receive)
        until = time.monotonic() + within_s
        while not heard.is_set():
            if time.monotonic() > until:
                raise nobody_left("the scheduler does not answer")
            # The subscription travels apart from calls, so a call that returned says nothing of it; an echo does.
            client.log_event(self.topic, _ECHO)
            heard.wait(_ECHO_S)

    def put(self, said: Any) -> None:
        """Add something, from any thread."""
        self._said.put(said)

    def heard(self, wait_s: float) -> Iterator[Any]:
        """All that is there; where there is nothing, the first that comes within ``wait_s``."""
        with suppress(queue.Empty):
            yield self._said.get(timeout=wait_s)
            while True:
                yield self._said.get_nowait()


def call_within(seconds: float, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call something that asks every worker; one that hangs must not hold this process, so the thread is left behind."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            call(*arguments, **named)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
