"""From per-frame probabilities to a timeline: smoothing, the unsure rule, segments, and the best frame of each plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

PLANES = (
    "3VV", "4CH", "Abdominal", "Background", "Brain (Cb.)", "Brain (Tv.)", "Femur", "Kidneys", "Lips", "LVOT", "Profile",
    "RVOT", "Spine (cor.)", "Spine (sag.)",
)  # fmt: skip
"""The 14 classes in SonoNet's output order, by its public code."""

BACKGROUND_CLASS = "Background"
"""The class of frames that show no standard plane."""

WINDOW_FRAMES = 5
"""Frames whose median is taken, the frame itself in the middle."""

WINDOW_S = 0.25
"""Frames further away than this (seconds) are left out of the median, whatever the frame rate."""

SURE_PLANE = 0.45
"""Least smoothed probability of a plane that is called; below it the frame is unsure. See docs/ultrasound.md."""

SURE_BACKGROUND = 0.5
"""Least smoothed probability of Background that is called background; below it the frame is unsure."""

MIN_SEGMENT_FRAMES = 3
"""Shortest run of analysed frames of a recording that counts as a plane found; stills have no runs."""

Probabilities = NDArray[np.float32]


class FrameState(StrEnum):
    """What is said about a frame."""

    PLANE = "plane"
    BACKGROUND = "background"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Segment:
    """A run of frames in one plane. ``first`` and ``last`` (inclusive) count analysed frames, not source frames."""

    label: str
    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of analysed frames."""
        return self.last - self.first + 1


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a clip shows, frame by frame.

    Parameters
    ----------
    classes
        Names in the order of the probabilities' columns.
    indices
        Position of each analysed frame in its source.
    times_s
        Its time, or None.
    probabilities, smoothed
        float32 (analysed frame, class); rows sum to 1.
    states
        One per analysed frame.
    segments
        Runs of planes in order of time.
    """

    classes: tuple[str, ...]
    indices: tuple[int, ...]
    times_s: tuple[float | None, ...]
    probabilities: Probabilities
    smoothed: Probabilities
    states: tuple[FrameState, ...]
    segments: tuple[Segment, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Each frame's own top class."""
        return tuple(self.classes[i] for i in self.probabilities.argmax(axis=1))

    @property
    def smoothed_labels(self) -> tuple[str, ...]:
        """Each frame's top class after smoothing."""
        return tuple(self.classes[i] for i in self.smoothed.argmax(axis=1))


def make_timeline(
    probabilities: Probabilities,
    *,
    classes: tuple[str, ...],
    indices: Sequence[int],
    times_s: Sequence[float | None],
    moving: bool,
    evidence: NDArray[np.float32] | None = None,
    least_evidence: float = -np.inf,
) -> Timeline:
    """Smooth (recordings only), decide, and cut into segments.

    Parameters
    ----------
    probabilities
        float32 (analysed frame, class).
    moving
        False for stills: they are not smoothed and each stands for itself.
    evidence, least_evidence
        float32 (analysed frame,): how much the network saw of anything, and how much of it a plane must have to be called.
    """
    smoothed = smooth(probabilities, times_s) if moving else probabilities
    if evidence is not None and moving:
        evidence = _medians(evidence[:, None], times_s)[:, 0]
    decided = states(smoothed, classes, enough=None if evidence is None else evidence >= least_evidence)
    labels = [classes[i] for i in smoothed.argmax(axis=1)]
    segments = _segments(labels, decided, shortest=MIN_SEGMENT_FRAMES if moving else 1, join=moving)
    return Timeline(classes, tuple(indices), tuple(times_s), probabilities, smoothed, decided, segments)


def smooth(probabilities: Probabilities, times_s: Sequence[float | None]) -> Probabilities:
    """Running median of each class over the neighbours in time, scaled to sum to 1 again.

    The median drops single frames and keeps the edges of planes where a mean would smear a sure plane over its unsure
    neighbour. At both ends the window is cut, not padded.

    Parameters
    ----------
    probabilities
        float32 (analysed frame, class).
    times_s
        Time of each frame; where it is not known only the number of frames limits the window.
    """
    medians = _medians(probabilities, times_s)
    totals = medians.sum(axis=1, keepdims=True)
    # Five frames that agree on nothing can have a median of 0 in every class: then the frame speaks for itself.
    return np.where(totals > 0, medians / np.where(totals > 0, totals, 1), probabilities)


def _medians(values: NDArray[np.float32], times_s: Sequence[float | None]) -> NDArray[np.float32]:
    """Running median of each column, float32 (analysed frame, column)."""
    count = len(values)
    half = WINDOW_FRAMES // 2
    result = np.empty_like(values)
    known = not any(time is None for time in times_s)
    times = np.array([float(time or 0.0) for time in times_s])
    for index in range(count):
        window = np.arange(max(0, index - half), min(count, index + half + 1))
        if known:
            window = window[np.abs(times[window] - times[index]) <= WINDOW_S]
        result[index] = np.median(values[window], axis=0)
    return result


def states(
    smoothed: Probabilities, classes: tuple[str, ...], *, enough: NDArray[np.bool_] | None = None
) -> tuple[FrameState, ...]:
    """The unsure rule, frame by frame; ``enough`` says where there is evidence enough for a plane, None: everywhere."""
    decided = []
    for index, row in enumerate(smoothed):
        top = int(row.argmax())
        if classes[top] == BACKGROUND_CLASS:
            decided.append(FrameState.BACKGROUND if row[top] >= SURE_BACKGROUND else FrameState.UNSURE)
        else:
            sure = row[top] >= SURE_PLANE and (enough is None or bool(enough[index]))
            decided.append(FrameState.PLANE if sure else FrameState.UNSURE)
    return tuple(decided)


def best_frames(timeline: Timeline) -> dict[str, int]:
    """For each plane found, the analysed frame of its segments with the highest own probability, by name of the plane.

    Among equals the first. A frame whose own top class is another one is never taken.
    """
    best: dict[str, int] = {}
    labels = timeline.labels
    for segment in timeline.segments:
        column = timeline.classes.index(segment.label)
        for index in range(segment.first, segment.last + 1):
            if labels[index] != segment.label:
                continue
            held = best.get(segment.label)
            if held is None or timeline.probabilities[index, column] > timeline.probabilities[held, column]:
                best[segment.label] = index
    return dict(sorted(best.items()))


def _segments(labels: list[str], decided: tuple[FrameState, ...], *, shortest: int, join: bool) -> tuple[Segment, ...]:
    """Runs of equal planes; without ``join`` each frame is its own run."""
    keys = [(label, 0 if join else index) for index, label in enumerate(labels)]
    found = []
    position = 0
    for (key, state), group in groupby(zip(keys, decided, strict=True)):
        length = len(list(group))
        if state is FrameState.PLANE and length >= shortest:
            found.append(Segment(key[0], position, position + length - 1))
        position += length
    return tuple(found)
