"""What stands on the page of a folder in which a later run has begun."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from agseg.io.atomic import write_text

_UNFINISHED = '<p class="disclaimer" role="status">'
_MARKED = re.compile(f"<main>{re.escape(_UNFINISHED)}[^<]*</p>")


def mark_unfinished(path: Path, *, started: str) -> None:
    """Say on a page that a later run has begun; that run's own page takes its place when it ends.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    said = f"{_UNFINISHED}A run began at {escape(started)} and has not finished. What follows is of an earlier one.</p>"
    marked = f"<main>{said}".join(_MARKED.sub("<main>", text).split("<main>", 1))
    if marked != text:
        write_text(path, marked)
