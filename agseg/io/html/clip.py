"""An ultrasound clip as the page shows it: what was found in it, and in which frame of which file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agseg.report import StudyReport

MODALITY = "US"

TIMELINE = "timeline.png"


@dataclass(frozen=True)
class PlaneRow:
    """The best frame of a plane. ``picture`` and ``overlay`` are names below the clip's folder: the frame, and with its box."""

    plane: str
    file: str
    frame: str
    time: str
    probability: str
    box: str
    picture: str
    overlay: str


@dataclass(frozen=True)
class ClipView:
    """What was found in a clip: frames in all, how many show a plane, background, or neither for sure, and the planes."""

    frames: str
    plane: str
    background: str
    unsure: str
    rows: tuple[PlaneRow, ...]

    @property
    def planes(self) -> str:
        """Their names in one line."""
        return ", ".join(row.plane for row in self.rows) or "none"


def clip_of(study: StudyReport) -> ClipView | None:
    """What the record says of a clip; None if it is of no clip, or says nothing that makes sense."""
    told = study.extra
    try:
        states = told["states"]
        rows = tuple(_row(found) for found in told["best_frames"])
        plane, background, unsure = (str(states[name]) for name in ("plane", "background", "unsure"))
        return ClipView(str(told["frames"]), plane, background, unsure, rows)
    except (KeyError, TypeError, ValueError):
        return None


def _row(found: Mapping[str, Any]) -> PlaneRow:
    time_s, box, picture = found["time_s"], found["box"], str(found["picture"])
    return PlaneRow(
        str(found["plane"]),
        str(found["file"]),
        str(int(found["frame"])),
        "" if time_s is None else f"{float(time_s):.2f}",
        f"{float(found['probability']):.2f}",
        "" if box is None else ", ".join(str(int(edge)) for edge in box),
        picture,
        picture.replace("best/", "attention/", 1),
    )
