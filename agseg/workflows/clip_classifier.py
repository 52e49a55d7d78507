"""Classification of one ultrasound clip: read, classify, decide, localise, write.

The clip is read twice: once to classify every wanted frame, and once more, when the timeline is known, for the pictures of the
best frames (and of all frames for an annotated video). Frames are never kept, so memory does not grow with the clip.

While the network sees some batches, the next one is being decoded, cut and resized. On a CPU every core works on a batch of its
own: layers this thin are too short to be shared, and cores that wait for each other at every layer lose most of their time as
soon as anything else runs on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from agseg.batch.json_text import json_text
from agseg.errors import Code, InputError
from agseg.io.atomic import write_text
from agseg.io.names import spelled_out
from agseg.io.video.frames import Box, Frame, FrameSource, every
from agseg.ultrasound.draw import annotate, draw_timeline
from agseg.ultrasound.fan import View, ViewKind, masked, view_pixels
from agseg.ultrasound.localise import Map, box_in_source, combine, find_box
from agseg.ultrasound.planes import PlaneNetwork
from agseg.ultrasound.timeline import FrameState, Timeline, best_frames, make_timeline
from agseg.ultrasound.views import ViewTracker
from agseg.volume import Warned
from agseg.workflows.clip_files import (
    ClipResult,
    annotated_video,
    picture_name,
    planes_content,
    record_facts,
    time_of,
    write_frames,
    write_picture,
)
from agseg.workflows.prefetch import ahead, side_by_side

BATCH_FRAMES = 8
"""Frames that the network sees at once; more are no faster on a CPU and only take memory."""

AHEAD_BATCHES = 2
"""Batches that may wait, ready for the network, while it is busy."""

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[int, int | None], None]
"""``progress(frames done, frames in all if known)``."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Frames ready for the network, and what is remembered of each."""

    inputs: list[NDArray[np.float32]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    times_s: list[float | None] = field(default_factory=list)
    views: list[View] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Where the network looked in one frame: the mean map, and the box in source pixels."""

    heat: Map
    covers: Box
    box: Box | None


class ClipClassifier:
    """Classifies clips with one network.

    Parameters
    ----------
    network
        The classifier.
    step
        Analyse every ``step``-th frame.
    crop
        The user's box, or None to find the fan.
    annotated
        Whether to write ``annotated.mp4``.
    """

    def __init__(self, network: PlaneNetwork, *, step: int = 1, crop: Box | None = None, annotated: bool = False) -> None:
        self.network = network
        self.step = step
        self.crop = crop
        self.annotated = annotated

    def classify(self, source: FrameSource, folder: Path, *, names: Sequence[str], progress: Progress) -> ClipResult:
        """Write a clip's results into ``folder``, which exists and is nobody else's.

        ``names`` are those of the clip's files: one, or as many as there are stills.

        Raises
        ------
        InputError
            If the clip shows nothing.
        OutputError
            If a result cannot be written.
        """
        started = time.perf_counter()
        timeline, views = self._classify_frames(source, progress)
        classified = time.perf_counter()
        best = best_frames(timeline)
        boxes, frame_boxes = self._draw_frames(source, timeline, views, best, folder)
        files = [spelled_out(names[index if len(names) > 1 else 0]) for index in timeline.indices]
        write_frames(folder / "frames.csv", timeline, files=files, boxes=frame_boxes)
        write_picture(folder / "timeline.png", draw_timeline(timeline))
        planes = planes_content(timeline, best, boxes, files=files)
        write_text(folder / "planes.json", json_text(planes))
        finished = time.perf_counter()
        return ClipResult(
            warnings=(*source.warnings, *_view_warnings(views)),
            seconds={"classify": classified - started, "write": finished - classified, "total": finished - started},
            extra=record_facts(source, timeline, views, planes),
        )

    def _classify_frames(self, source: FrameSource, progress: Progress) -> tuple[Timeline, list[View]]:
        indices: list[int] = []
        times_s: list[float | None] = []
        views: list[View] = []
        rows: list[NDArray[np.float32]] = []
        evidence: list[NDArray[np.float32]] = []
        total = None if source.frame_count is None else -(-source.frame_count // self.step)
        with (
            closing(ahead(self._prepared(source), most=AHEAD_BATCHES)) as batches,
            closing(self._spread(self._classified, batches)) as seen,
        ):
            for batch, (probabilities, seen_of_any) in seen:
                rows.append(probabilities)
                evidence += [] if seen_of_any is None else [seen_of_any]
                indices += batch.indices
                times_s += batch.times_s
                views += batch.views
                progress(len(indices), total)
        if not rows:
            raise InputError("the clip holds no frame", code=Code.VIDEO)
        timeline = make_timeline(
            np.concatenate(rows),
            classes=self.network.classes,
            indices=indices,
            times_s=times_s,
            moving=source.moving,
            evidence=np.concatenate(evidence) if evidence else None,
            least_evidence=self.network.least_evidence or 0.0,
        )
        return timeline, views

    def _spread(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """The work side by side, a core each."""
        if self.network.device.type != "cpu":
            return side_by_side(work, items, workers=1)
        return side_by_side(work, items, workers=torch.get_num_threads(), begin=_one_thread)

    def _classified(self, batch: _Batch) -> tuple[_Batch, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        return batch, self.network.classify(batch.inputs)

    def _prepared(self, source: FrameSource) -> Iterator[_Batch]:
        tracker = ViewTracker(moving=source.moving, crop=self.crop, region=source.region)
        batch = _Batch()
        for frame in source.frames(every(self.step)):
            view = tracker.view_of(frame)
            batch.inputs.append(self.network.input.prepare(view_pixels(frame.pixels, view)))
            batch.indices.append(frame.index)
            batch.times_s.append(frame.time_s)
            batch.views.append(view)
            if len(batch.inputs) == BATCH_FRAMES:
                yield batch
                batch = _Batch()
        if batch.inputs:
            yield batch

    def _draw_frames(
        self, source: FrameSource, timeline: Timeline, views: list[View], best: dict[str, int], folder: Path
    ) -> tuple[dict[str, Box | None], dict[int, Box | None]]:
        """Read the clip again and write its pictures.

        Returns
        -------
        boxes, frame_boxes
            Those of the best frames, by plane; and those of frames, by position in the timeline.
        """
        planes_at: dict[int, list[str]] = {}
        for plane, position in best.items():
            planes_at.setdefault(position, []).append(plane)
        positions = {index: position for position, index in enumerate(timeline.indices)}
        wanted = frozenset(timeline.indices if self.annotated else (timeline.indices[position] for position in planes_at))
        boxes: dict[str, Box | None] = {}
        frame_boxes: dict[int, Box | None] = {}
        if not wanted:
            return boxes, frame_boxes

        def draw(frame: Frame) -> tuple[float, NDArray[np.uint8] | None]:
            position = positions[frame.index]
            shown = masked(frame.pixels, views[position])
            for plane in planes_at.get(position, []):
                boxes[plane] = self._draw_best(frame, shown, views[position], timeline, position, plane, folder)
                if plane == timeline.smoothed_labels[position]:
                    frame_boxes[position] = boxes[plane]
            if not self.annotated:
                return time_of(frame, source), None
            drawn, frame_boxes[position] = self._annotate(frame, shown, views[position], timeline, position)
            return time_of(frame, source), drawn

        with (
            annotated_video(folder / "annotated.mp4", source) if self.annotated else nullcontext() as video,
            closing(ahead(_until_all(source.frames(wanted.__contains__), wanted), most=1)) as frames,
            closing(self._spread(draw, frames)) as pictures,
        ):
            for time_s, picture in pictures:
                if video is not None and picture is not None:
                    video.write(picture, time_s=time_s)
        return boxes, frame_boxes

    def _draw_best(
        self, frame: Frame, shown: NDArray[np.uint8], view: View, timeline: Timeline, position: int, plane: str, folder: Path
    ) -> Box | None:
        """``best/<plane>.png``, the frame as it is, and ``attention/<plane>.png``, the same with map and box."""
        seen = self._look(frame, view, plane)
        probability = float(timeline.probabilities[position, timeline.classes.index(plane)])
        overlay = annotate(
            shown, label=plane, state=FrameState.PLANE, probability=probability, box=seen.box, heat=seen.heat, view=seen.covers
        )
        write_picture(folder / "best" / f"{picture_name(plane)}.png", Image.fromarray(shown))
        write_picture(folder / "attention" / f"{picture_name(plane)}.png", Image.fromarray(overlay))
        return seen.box

    def _annotate(
        self, frame: Frame, shown: NDArray[np.uint8], view: View, timeline: Timeline, position: int
    ) -> tuple[NDArray[np.uint8], Box | None]:
        """The frame with what is known about it, and the box of its plane."""
        label, state = timeline.smoothed_labels[position], timeline.states[position]
        # Only planes are looked for: where the network saw none there is nothing to point at, and half the time is saved.
        seen = self._look(frame, view, label) if state is FrameState.PLANE else None
        drawn = annotate(
            shown,
            label=label,
            state=state,
            probability=float(timeline.smoothed[position, timeline.classes.index(label)]),
            box=None if seen is None else seen.box,
            heat=None if seen is None else seen.heat,
            view=view.box if seen is None else seen.covers,
        )
        return drawn, None if seen is None else seen.box

    def _look(self, frame: Frame, view: View, plane: str) -> _Seen:
        maps = self.network.maps(self.network.input.prepare(view_pixels(frame.pixels, view)), plane=plane)
        covers = self.network.input.seen(view.box)
        box = find_box(maps)
        if box is not None:
            size = (frame.pixels.shape[1], frame.pixels.shape[0])
            box = box_in_source(box, shape=self.network.input.shape, view=covers, size=size)
        return _Seen(combine(maps), covers, box)


def _view_warnings(views: list[View]) -> tuple[Warned, ...]:
    count = sum(view.kind is ViewKind.WHOLE for view in views)
    if not count:
        return ()
    message = f"no fan was found in {count} of {len(views)} frames: all of them was looked at, and burned-in text is not masked"
    return (Warned(Code.NO_FAN, message),)


def _until_all(frames: Iterator[Frame], wanted: frozenset[int]) -> Iterator[Frame]:
    """The frames up to the last one that is wanted: the rest of the clip need not be decoded."""
    left = set(wanted)
    for frame in frames:
        yield frame
        left.discard(frame.index)
        if not left:
            return


def _one_thread() -> None:
    """What torch does in this thread it does alone; other threads are not touched."""
    torch.set_num_threads(1)
