"""Cohorts of ultrasound frames with one class each: PNG files and a ``frames.csv``.

``frames.csv`` has the columns ``id, file, subject, label, x0, y0, x1, y1``; the box is empty where nobody drew one. Ids are
``<subject>/<name>``, so that a split can keep a subject together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, replacing, write_text

FRAMES_FILE = "frames.csv"
_COLUMNS = ("id", "file", "subject", "label", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class FrameRow:
    """One frame: where it is, whose it is, what it shows, and the structure's box (end-exclusive, pixels) if known."""

    id: str
    file: str
    subject: str
    label: str
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class FrameCohort:
    """The frames of a folder, by id."""

    root: Path
    rows: dict[str, FrameRow]

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in order."""
        return tuple(sorted(self.rows))

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in alphabetical order, which is the order of SonoNet's outputs for the papers' classes."""
        return tuple(sorted({row.label for row in self.rows.values()}, key=str.casefold))

    def read(self, frame_id: str) -> NDArray[np.uint8]:
        """One frame: uint8 (row, column)."""
        from PIL import Image

        with Image.open(self.root / self.rows[frame_id].file) as image:
            return np.asarray(image.convert("L"), dtype=np.uint8)


def subject_of(frame_id: str) -> str:
    """Whose frame it is."""
    return frame_id.split("/", maxsplit=1)[0]


def open_frames(root: Path) -> FrameCohort:
    """The frames listed in a folder's ``frames.csv``.

    Raises
    ------
    RecipeError
        If the list is missing or damaged, names a frame twice, or a file of it is not there.
    """
    path = root / FRAMES_FILE
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [_row(entry) for entry in csv.DictReader(stream)]
    except OSError:
        raise RecipeError("no frames here", path=root, expected=FRAMES_FILE) from None
    except (KeyError, ValueError) as error:
        raise RecipeError("frames.csv is damaged", path=path, expected=", ".join(_COLUMNS)) from error
    lost = [row.file for row in rows if not (root / row.file).is_file()]
    if lost or not rows:
        raise RecipeError("frames that are not there" if lost else "no frame in the list", path=path, value=lost[:5] or None)
    found: dict[str, FrameRow] = {}
    for row in rows:
        if row.id in found:
            raise RecipeError("a frame is listed twice", path=path, value=row.id)
        found[row.id] = row
    return FrameCohort(root, found)


def _row(entry: dict[str, str]) -> FrameRow:
    corners = [entry[name] for name in _COLUMNS[4:]]
    box = None if "" in corners else (int(corners[0]), int(corners[1]), int(corners[2]), int(corners[3]))
    return FrameRow(entry["id"], entry["file"], entry["subject"], entry["label"], box)


def write_frames(root: Path, frames: Iterable[tuple[FrameRow, NDArray[np.uint8]]]) -> tuple[str, ...]:
    """Write frames as PNG with their list; returns the ids."""
    from PIL import Image

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    ids = []
    for row, pixels in frames:
        path = root / row.file
        make_folder(path.parent)
        with replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        table.writerow([row.id, row.file, row.subject, row.label, *(row.box or ("", "", "", ""))])
        ids.append(row.id)
    write_text(root / FRAMES_FILE, text.getvalue())
    return tuple(ids)


def provided_frames(download: Path, *, classes: Sequence[str]) -> Iterator[tuple[FrameRow, NDArray[np.uint8]]]:
    """Frames laid out as ``<subject>/<class>/<frame>.png|jpg``, the layout that ``dataset prepare fetal-us`` reads.

    Raises
    ------
    RecipeError
        If a class folder has a name that is none of the classes.
    """
    from PIL import Image

    for path in sorted(p for p in download.glob("*/*/*") if p.suffix.lower() in (".png", ".jpg", ".jpeg")):
        subject, label = path.parent.parent.name, path.parent.name
        if label not in classes:
            raise RecipeError("a folder's name is not one of the classes", path=path.parent, expected=", ".join(classes))
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"), dtype=np.uint8)
        frame_id = f"{subject}/{label}-{path.stem}"
        yield FrameRow(frame_id, f"frames/{subject}/{label}-{path.stem}.png", subject, label), pixels
