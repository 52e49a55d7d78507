"""What an archive has confirmed to have taken, noted beside the results, so that it need not be fetched back each night.

``.agseg.sent.json`` in a study's folder: archive -> SOP instance (hashed) -> SHA-256 of the file that was sent. A note counts
only while the archive still lists the object, under the same patient.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from agseg.errors import OutputError
from agseg.io.atomic import write_text
from agseg.io.pacs.folder import hashed_name

SENT_JSON = ".agseg.sent.json"


def was_sent(path: Path, *, place: str, sop_uid: str, sha256: str) -> bool:
    """Whether this archive has confirmed this very file."""
    return _notes(path.parent).get(place, {}).get(hashed_name(sop_uid)) == sha256


def note_sent(path: Path, *, place: str, sop_uid: str, sha256: str) -> None:
    """Note that the archive has confirmed this file; where nothing can be written, nothing is noted."""
    notes = _notes(path.parent)
    notes.setdefault(place, {})[hashed_name(sop_uid)] = sha256
    with suppress(OSError, OutputError):
        write_text(path.parent / SENT_JSON, json.dumps(notes, indent=2, sort_keys=True) + "\n")


def _notes(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / SENT_JSON
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            notes = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(notes, dict):
        return {}
    return {str(place): dict(known) for place, known in notes.items() if isinstance(known, dict)}
