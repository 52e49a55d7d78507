"""How far a download has come, as it is told."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None, str], None]
"""``progress(bytes done, bytes in all if known, file name)``."""


def no_progress(done: int, total: int | None, name: str) -> None:
    """Tell nobody."""
