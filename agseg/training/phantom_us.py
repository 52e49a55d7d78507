"""Synthetic fetal ultrasound frames of the 14 classes, each with the box of its structure.

A frame is a sector of speckle with arbitrary tissue, in which one schematic structure is drawn as bright and dark shapes:
enough for a classifier to learn and for a box to be found, nothing like a fetus. The structure lies anywhere in the fan, in a
range of sizes and turned either way; Background has the same tissue without a structure. Frames come in subjects, whose gain,
speckle and depth differ, so that splits by subject mean something. Everything follows from (seed, subject, frame).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.ultrasound.timeline import BACKGROUND_CLASS, PLANES

FRAME_SHAPE = (224, 288)
"""Rows and columns of a stored frame, as the papers store them."""

_SECTOR_HALF_ANGLE = 0.62
"""Half the opening of the fan (radians)."""

SCALES_PX = (26.0, 54.0)
"""Smallest and largest unit of a structure. A head, 2.5 units long, then fills 0.23 to 0.47 of the frame's width; the heads of
thirteen HC18 frames fill 0.26 to 0.46 of theirs."""

_REACH = 1.3
"""How far a structure reaches from its centre (units): its circle lies within the fan, wherever it is turned."""

_LARGEST_TURN = 0.8
"""Largest rotation of a structure, either way (radians)."""

_MARGIN_PX = 8
"""Rows and columns at the frame's sides that the networks' central crop leaves out."""

_TISSUE = (0.05, 0.25, 0.55, 0.75)
"""Echo of arbitrary tissue, from fluid to bone."""


@dataclass(frozen=True, eq=False)
class PhantomFrame:
    """One synthetic frame.

    Parameters
    ----------
    pixels
        uint8, shape :data:`FRAME_SHAPE` (row, column).
    label
        One of :data:`~agseg.ultrasound.timeline.PLANES`.
    box
        (x0, y0, x1, y1) around the structure in pixels, end-exclusive; None for Background.
    subject
        Whom it belongs to; a split keeps subjects together.
    """

    pixels: NDArray[np.uint8]
    label: str
    box: tuple[int, int, int, int] | None
    subject: str


Draw = Callable[["_Sketch"], None]


class _Sketch:
    """Echo strength around a structure in its own coordinates: (u, v) in about [-1, 1], rotated and scaled into the frame.

    Parameters
    ----------
    echo
        float64 :data:`FRAME_SHAPE`; it is drawn into.
    centre
        Row and column.
    scale
        Pixels of one unit.
    angle
        Rotation (radians).
    """

    def __init__(self, echo: NDArray[np.float64], *, centre: NDArray[np.float64], scale: float, angle: float) -> None:
        rows, columns = _positions()
        down, right = (rows - centre[0]) / scale, (columns - centre[1]) / scale
        self.u = right * np.cos(angle) + down * np.sin(angle)
        self.v = -right * np.sin(angle) + down * np.cos(angle)
        self.echo = echo
        self.extent = np.zeros(FRAME_SHAPE, dtype=bool)

    def level(self, at: tuple[float, float], semi: tuple[float, float]) -> NDArray[np.float64]:
        """Elliptical radius around a point: 1 on the ellipse with these semi-axes."""
        return np.asarray(np.hypot((self.u - at[0]) / semi[0], (self.v - at[1]) / semi[1]))

    def blob(self, at: tuple[float, float], semi: tuple[float, float], echo: float) -> None:
        """A filled ellipse."""
        inside = self.level(at, semi) <= 1
        self.echo[inside] = echo
        self.extent |= inside

    def ring(self, at: tuple[float, float], semi: tuple[float, float], echo: float, *, width: float = 0.09) -> None:
        """The outline of an ellipse."""
        edge = np.abs(self.level(at, semi) - 1) * min(semi) <= width / 2
        self.echo[edge] = echo
        self.extent |= edge

    def stroke(self, points: list[tuple[float, float]], echo: float, *, width: float = 0.1) -> None:
        """A polyline."""
        for (a, b), (c, d) in itertools.pairwise(points):
            length = max((c - a) ** 2 + (d - b) ** 2, 1e-9)
            where = np.clip(((self.u - a) * (c - a) + (self.v - b) * (d - b)) / length, 0, 1)
            near = np.hypot(self.u - a - where * (c - a), self.v - b - where * (d - b)) <= width / 2
            self.echo[near] = echo
            self.extent |= near

    def head(self) -> None:
        """A skull with its midline."""
        self.blob((0, 0), (1.25, 0.95), 0.28)
        self.ring((0, 0), (1.25, 0.95), 0.95, width=0.12)
        self.stroke([(-1.1, 0), (0.3, 0)], 0.7, width=0.05)

    def thorax(self) -> None:
        """A chest with the round heart outline."""
        self.blob((0, 0), (1.15, 1.05), 0.42)
        self.ring((0, 0), (1.15, 1.05), 0.75, width=0.07)


def _brain_cerebellum(sketch: _Sketch) -> None:
    sketch.head()
    for side in (-0.28, 0.28):
        sketch.blob((0.72, side), (0.24, 0.26), 0.6)
    sketch.ring((0.72, 0), (0.28, 0.5), 0.85, width=0.06)


def _brain_ventricle(sketch: _Sketch) -> None:
    sketch.head()
    sketch.blob((0.45, 0.42), (0.42, 0.13), 0.05)
    sketch.blob((0.5, 0.4), (0.2, 0.07), 0.8)
    sketch.blob((-0.7, 0), (0.1, 0.16), 0.05)


def _abdominal(sketch: _Sketch) -> None:
    sketch.blob((0, 0), (1.05, 1.0), 0.5)
    sketch.ring((0, 0), (1.05, 1.0), 0.8, width=0.07)
    sketch.blob((-0.45, 0.1), (0.24, 0.18), 0.03)
    sketch.stroke([(0.1, -0.3), (0.35, -0.05), (0.3, 0.3)], 0.05, width=0.1)
    sketch.blob((0, 0.8), (0.13, 0.12), 0.95)


def _kidneys(sketch: _Sketch) -> None:
    for side in (-0.6, 0.6):
        sketch.blob((side, 0), (0.36, 0.46), 0.25)
        sketch.ring((side, 0), (0.36, 0.46), 0.6, width=0.05)
        sketch.blob((side, 0), (0.1, 0.17), 0.02)
    sketch.blob((0, -0.1), (0.14, 0.14), 0.95)


def _femur(sketch: _Sketch) -> None:
    sketch.stroke([(-1.0, 0.04), (0, -0.03), (1.0, 0.05)], 1.0, width=0.17)
    sketch.echo[(sketch.v > 0.15) & (np.abs(sketch.u) < 0.95)] *= 0.35


def _lips(sketch: _Sketch) -> None:
    for height in (-0.14, 0.14):
        sketch.stroke([(-0.5, 0), (-0.22, height * 1.6), (0, height), (0.22, height * 1.6), (0.5, 0)], 0.85, width=0.13)
    sketch.blob((-0.2, -0.6), (0.09, 0.11), 0.03)
    sketch.blob((0.2, -0.6), (0.09, 0.11), 0.03)
    sketch.stroke([(-0.32, -0.7), (0, -0.92), (0.32, -0.7)], 0.75, width=0.1)


def _profile(sketch: _Sketch) -> None:
    face = [(-0.9, -0.6), (-0.5, -0.85), (-0.1, -0.8), (0.2, -0.95), (0.35, -0.7), (0.55, -0.72), (0.62, -0.5), (0.9, -0.45)]
    sketch.stroke(face, 0.95, width=0.1)
    sketch.ring((-0.45, 0.05), (0.85, 0.75), 0.6, width=0.06)
    sketch.stroke([(0.15, -0.55), (0.55, -0.4)], 0.9, width=0.07)


def _four_chambers(sketch: _Sketch) -> None:
    sketch.thorax()
    for x in (-0.27, 0.27):
        for y in (-0.3, 0.26):
            sketch.blob((x, y), (0.22, 0.25), 0.04)
    sketch.stroke([(0, -0.6), (0, 0.55)], 0.8, width=0.06)


def _three_vessels(sketch: _Sketch) -> None:
    sketch.thorax()
    for x, radius in ((-0.42, 0.2), (0.0, 0.16), (0.36, 0.11)):
        sketch.blob((x, 0.18 * x), (radius, radius), 0.03)


def _left_outflow(sketch: _Sketch) -> None:
    sketch.thorax()
    sketch.blob((-0.35, 0.1), (0.42, 0.22), 0.04)
    sketch.stroke([(-0.1, 0.05), (0.35, -0.2), (0.6, -0.55)], 0.04, width=0.2)


def _right_outflow(sketch: _Sketch) -> None:
    sketch.thorax()
    sketch.stroke([(-0.5, -0.3), (0.1, -0.35), (0.6, 0.1), (0.62, 0.5)], 0.04, width=0.2)
    sketch.blob((0.02, 0.1), (0.15, 0.15), 0.04)


def _spine_coronal(sketch: _Sketch) -> None:
    for x in np.linspace(-1.2, 1.2, 11):
        gap = 0.16 + 0.1 * abs(x)
        for side in (-gap, gap):
            sketch.blob((float(x), side), (0.075, 0.065), 0.95)


def _spine_sagittal(sketch: _Sketch) -> None:
    for x in np.linspace(-1.25, 1.25, 12):
        bend = 0.28 * x * x - 0.2
        sketch.blob((float(x), bend), (0.085, 0.1), 0.95)
    sketch.stroke([(float(x), 0.28 * float(x) ** 2 - 0.42) for x in np.linspace(-1.25, 1.25, 9)], 0.6, width=0.06)


def _nothing(_sketch: _Sketch) -> None:
    """Background: the tissue around is all there is."""


_DRAW: dict[str, Draw] = {
    "3VV": _three_vessels,
    "4CH": _four_chambers,
    "Abdominal": _abdominal,
    "Background": _nothing,
    "Brain (Cb.)": _brain_cerebellum,
    "Brain (Tv.)": _brain_ventricle,
    "Femur": _femur,
    "Kidneys": _kidneys,
    "Lips": _lips,
    "LVOT": _left_outflow,
    "Profile": _profile,
    "RVOT": _right_outflow,
    "Spine (cor.)": _spine_coronal,
    "Spine (sag.)": _spine_sagittal,
}


def make_frames(*, subjects: int, frames_per_subject: int = len(PLANES), seed: int = 0) -> Iterator[PhantomFrame]:
    """Frames of several subjects; each subject's frames go through the classes in turn."""
    for subject in range(1, subjects + 1):
        for frame in range(frames_per_subject):
            yield make_frame(PLANES[frame % len(PLANES)], subject=subject, frame=frame, seed=seed)


def make_frame(label: str, *, subject: int, frame: int = 0, seed: int = 0) -> PhantomFrame:
    """One frame of a class.

    Raises
    ------
    KeyError
        If the label is none of the planes.
    """
    draw = _DRAW[label]
    generator = np.random.default_rng([zlib.crc32(label.encode()), seed, subject, frame])
    scanner = np.random.default_rng([seed, subject])
    echo = _tissue(generator)
    scale = generator.uniform(*SCALES_PX)
    angle = generator.uniform(-_LARGEST_TURN, _LARGEST_TURN)
    sketch = _Sketch(echo, centre=_place(generator, reach_px=_REACH * scale), scale=scale, angle=angle)
    draw(sketch)
    pixels = _scan(echo, generator, scanner)
    return PhantomFrame(pixels, label, None if label == BACKGROUND_CLASS else _box(sketch.extent), f"subject_{subject:04d}")


def _place(generator: np.random.Generator, *, reach_px: float) -> NDArray[np.float64]:
    """Row and column of a random place from which nothing within reach lies outside of the fan."""
    places = np.argwhere(_depth_in_fan() >= reach_px)
    return np.asarray(places[generator.integers(len(places))], dtype=np.float64)


def _tissue(generator: np.random.Generator) -> NDArray[np.float64]:
    """Echo strength of arbitrary tissue: a few ellipses and a bright line, anywhere."""
    echo = np.full(FRAME_SHAPE, 0.22)
    for _ in range(int(generator.integers(3, 8))):
        part = _part(echo, generator)
        part.blob((0, 0), (1, float(generator.uniform(0.4, 1))), float(generator.choice(_TISSUE)))
    _part(echo, generator).stroke([(-1.5, 0.3), (0, float(generator.uniform(-0.5, 0.5))), (1.5, 0.3)], 0.7)
    return echo


def _part(echo: NDArray[np.float64], generator: np.random.Generator) -> _Sketch:
    centre = generator.uniform(0, 1, 2) * FRAME_SHAPE
    return _Sketch(echo, centre=centre, scale=generator.uniform(8, 36), angle=generator.uniform(-np.pi, np.pi))


def _box(extent: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(extent.any(axis=1)), np.flatnonzero(extent.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _scan(echo: NDArray[np.float64], generator: np.random.Generator, scanner: np.random.Generator) -> NDArray[np.uint8]:
    """Speckle, attenuation with depth, log compression and the fan; gain and speckle size belong to the subject's scanner."""
    size, gain, attenuation = scanner.uniform(0.7, 1.4), scanner.uniform(0.85, 1.2), scanner.uniform(0.2, 0.8)
    tissue = ndimage.gaussian_filter(echo, 1.0)
    tissue *= np.exp(0.25 * ndimage.gaussian_filter(generator.normal(0, 1, FRAME_SHAPE), 12) * 12)
    parts = [ndimage.gaussian_filter(generator.normal(0, 1, FRAME_SHAPE), (size, 1.6 * size)) for _ in range(2)]
    speckle = np.hypot(*parts)
    amplitude = tissue * speckle / speckle.mean()
    amplitude *= gain * np.exp(-attenuation * _positions()[0] / FRAME_SHAPE[0])
    picture = np.log1p(6 * amplitude) / np.log1p(6)
    return np.asarray(np.where(_fan(), np.clip(picture, 0, 1) * 230, 0), dtype=np.uint8)


@cache
def _positions() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column of every pixel."""
    rows, columns = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in FRAME_SHAPE], indexing="ij")
    return rows, columns


@cache
def _fan() -> NDArray[np.bool_]:
    """Where the sector lies."""
    rows, columns = _positions()
    depth, sideways = rows + 0.35 * FRAME_SHAPE[0], columns - FRAME_SHAPE[1] / 2
    radius = np.hypot(depth, sideways)
    inside = (radius > 0.36 * FRAME_SHAPE[0]) & (radius < 1.33 * FRAME_SHAPE[0])
    return np.asarray(inside & (np.abs(np.arctan2(sideways, depth)) < _SECTOR_HALF_ANGLE))


@cache
def _depth_in_fan() -> NDArray[np.float64]:
    """Distance (pixels) of every pixel of the fan from its edge, as far as the networks see it."""
    seen = np.zeros(FRAME_SHAPE, dtype=bool)
    inner = (slice(_MARGIN_PX, -_MARGIN_PX),) * 2
    seen[inner] = _fan()[inner]
    return np.asarray(ndimage.distance_transform_edt(seen))
