"""What a worker process that agseg starts on this machine begins with: a preload of Dask, named by its module."""

from __future__ import annotations

import logging
import signal
from typing import Any

_OF_ITS_END = ("Failed to communicate with scheduler during heartbeat", "Scheduler was unaware of this worker")


def dask_setup(_worker: Any) -> None:
    """Called by Dask as the worker starts.

    Ctrl-C in the terminal is for the run, which ends its workers in order. A worker that ends between two heartbeats calls the
    silence of its scheduler an error; but the scheduler lives in the run's own process, so that is never news, and cron would
    mail it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OF_ITS_END)
