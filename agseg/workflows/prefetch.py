"""Prefetching and ordered parallel map, in threads, with bounded queues."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

_PUT_S = 0.1
"""How soon the thread notices that nobody takes its items any more."""


T = TypeVar("T")
R = TypeVar("R")


class _End:
    """The last item, with the exception that ended the others."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[T], *, most: int) -> Generator[T, None, None]:
    """The same items in the same order, made by a thread; at most ``most`` of them wait. Errors come where they belong.

    Closing this one early closes ``items`` if it is a generator, after the item that is being made.
    """
    made: queue.Queue[T | _End] = queue.Queue(maxsize=most)
    enough = threading.Event()

    def put(item: T | _End) -> bool:
        while not enough.is_set():
            with suppress(queue.Full):
                made.put(item, timeout=_PUT_S)
                return True
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as caught:
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()
            put(_End(error))

    worker = threading.Thread(target=work, name="ahead", daemon=True)
    worker.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        enough.set()
        worker.join()


def side_by_side(
    work: Callable[[T], R], items: Iterable[T], *, workers: int, begin: Callable[[], None] | None = None
) -> Generator[R, None, None]:
    """What ``work`` makes of each item, in the items' order, by several threads at once.

    Parameters
    ----------
    work
        Called in any of the threads.
    items
        At most ``workers + 1`` of them are out at a time.
    workers
        Threads.
    begin
        Called once in each thread before its first item.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="side", initializer=begin) as pool:
        out: deque[Future[R]] = deque()
        for item in items:
            out.append(pool.submit(work, item))
            if len(out) > workers:
                yield out.popleft().result()
        while out:
            yield out.popleft().result()
