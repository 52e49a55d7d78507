"""Output files of one ultrasound clip: table of frames, planes, pictures, annotated video, facts for its record.

docs/ultrasound.md describes the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from agseg.io.atomic import replacing, write_text
from agseg.io.tables import table_text
from agseg.io.video.frames import Box, Frame, FrameSource
from agseg.io.video.writer import VideoWriter
from agseg.ultrasound.fan import View
from agseg.ultrasound.timeline import FrameState, Timeline
from agseg.volume import Warned

STILL_S = 1.0
"""How long a still stands in an annotated video (seconds)."""

ASSUMED_RATE = 25.0
"""Frames per second of an annotated video of a recording that states no times."""


def picture_name(plane: str) -> str:
    """The plane's name as a file name: names may come from a site's manifest."""
    return re.sub(r"[^\w ().+-]", "_", plane).strip(" .") or "plane"


@dataclass(frozen=True)
class ClipResult:
    """What a clip's record needs; see docs/ultrasound.md for ``extra``."""

    warnings: tuple[Warned, ...]
    seconds: dict[str, float]
    extra: dict[str, Any]


_FILE_AND_BOX = ("file", "x0", "y0", "x1", "y1")


def write_frames(path: Path, timeline: Timeline, *, files: Sequence[str], boxes: Mapping[int, Box | None]) -> None:
    """frames.csv: one row per analysed frame, with the probability of every class.

    Parameters
    ----------
    path, timeline
        Where, and what was decided.
    files
        Name of the file that each frame is from.
    boxes
        Where the network saw the frame's plane, by the frame's row; not every row has one.
    """
    table = [["frame", "time_s", "label", "probability", "smoothed_label", "state", *timeline.classes, *_FILE_AND_BOX]]
    rows = zip(
        timeline.indices,
        timeline.times_s,
        timeline.labels,
        timeline.smoothed_labels,
        timeline.states,
        timeline.probabilities,
        strict=True,
    )
    for number, (index, time_s, label, smoothed_label, state, row) in enumerate(rows):
        shown = "" if time_s is None else f"{time_s:.6f}"
        box = boxes.get(number)
        table.append(
            [
                *(str(index), shown, label, f"{row.max():.6f}", smoothed_label, state.value),
                *(f"{p:.6f}" for p in row),
                files[number],
                *([""] * 4 if box is None else map(str, box)),
            ]
        )
    write_text(path, table_text(table))


def planes_content(
    timeline: Timeline, best: dict[str, int], boxes: dict[str, Box | None], *, files: Sequence[str]
) -> dict[str, Any]:
    """The content of planes.json: one entry per plane found, by its name."""
    content = {}
    for plane, position in best.items():
        box = boxes.get(plane)
        content[plane] = {
            "frame": timeline.indices[position],
            "time_s": _rounded(timeline.times_s[position]),
            "file": files[position],
            "probability": _rounded(float(timeline.probabilities[position, timeline.classes.index(plane)])),
            "box": None if box is None else list(box),
            "picture": f"best/{picture_name(plane)}.png",
            "segments": [
                {
                    "first_frame": timeline.indices[segment.first],
                    "last_frame": timeline.indices[segment.last],
                    "start_s": _rounded(timeline.times_s[segment.first]),
                    "end_s": _rounded(timeline.times_s[segment.last]),
                }
                for segment in timeline.segments
                if segment.label == plane
            ],
        }
    return content


def record_facts(source: FrameSource, timeline: Timeline, views: list[View], planes: dict[str, Any]) -> dict[str, Any]:
    """What the clip's record tells beside that of any study (:func:`agseg.report.clip_facts`); ``planes`` as in planes.json."""
    states = [state.value for state in timeline.states]
    return {
        "size": list(source.size),
        "frames": len(timeline.indices),
        "frames_per_second": _rounded(source.frames_per_second),
        "moving": source.moving,
        "views": sorted({view.kind.value for view in views}),
        "states": {state.value: states.count(state.value) for state in FrameState},
        "planes": list(planes),
        "best_frames": [
            {"plane": plane, **{name: found[name] for name in ("frame", "time_s", "file", "probability", "box", "picture")}}
            for plane, found in planes.items()
        ],
    }


def annotated_video(path: Path, source: FrameSource) -> VideoWriter:
    """A video as large and as fast as the clip; stills stand for :data:`STILL_S`."""
    rate = source.frames_per_second or (ASSUMED_RATE if source.moving else 1.0 / STILL_S)
    return VideoWriter(path, size=source.size, frames_per_second=rate)


def time_of(frame: Frame, source: FrameSource) -> float:
    """When the frame is shown in the annotated video (seconds)."""
    if frame.time_s is not None:
        return frame.time_s
    return frame.index / ASSUMED_RATE if source.moving else frame.index * STILL_S


def write_picture(path: Path, image: Image.Image) -> None:
    """A PNG, opened again before it takes its place."""

    def check(written: Path) -> None:
        with Image.open(written) as back:
            back.verify()

    with replacing(path, check=check) as temporary:
        image.save(temporary, format="PNG")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
