"""Ends a DIMSE connection that is silent or too slow: pynetdicom waits for the next byte, and the next, for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

from agseg.io.exchange import Pace


class Watch:
    """Sees what moves on an association, and cuts its connection when the pace is not kept.

    Its methods are handlers of pynetdicom's events. Use as a context: leaving it ends the watch.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._association: Any = None
        self._moved_bytes = 0
        self._started_s = self._last_s = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.has_cut = False

    def begin(self, event: Any) -> None:
        """The connection is open (EVT_CONN_OPEN)."""
        self._association = event.assoc
        self._thread = threading.Thread(target=self._run, name="agseg-pacs-watch", daemon=True)
        self._thread.start()

    def moved(self, event: Any) -> None:
        """A protocol data unit came or went (EVT_DATA_RECV, EVT_DATA_SENT)."""
        self.alive(len(event.data))

    def alive(self, n_bytes: int) -> None:
        """Something moved, perhaps on another connection that belongs to this one."""
        self._moved_bytes += n_bytes
        self._last_s = time.monotonic()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        tick_s = min(0.5, self._pace.silence_s / 4)
        while not self._over.wait(tick_s):
            now_s = time.monotonic()
            late = now_s - self._started_s > self._pace.allowed_s(self._moved_bytes)
            # A little longer than pynetdicom's own time-outs, which end an association in better order.
            if late or now_s - self._last_s > self._pace.silence_s + 1.0:
                self.has_cut = True
                with contextlib.suppress(OSError, AttributeError):  # it may be closed, or gone, meanwhile
                    self._association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
                return
