"""Synthetic fetal ultrasound frames of the 14 classes, each with the box of its structure.

A frame is a sector of speckle in which one schematic structure is drawn as bright and dark shapes: enough for a classifier to
learn and for a box to be found, nothing like a fetus. Frames come in subjects, whose gain, speckle and depth differ, so that
splits by subject mean something. Everything follows from (seed, subject, frame).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["FRAME_SHAPE", "PLANES", "PhantomFrame", "make_frame", "make_frames"]

PLANES = (
    "3VV", "4CH", "Abdominal", "Background", "Brain (Cb.)", "Brain (Tv.)", "Femur", "Kidneys", "Lips", "LVOT", "Profile",
    "RVOT", "Spine (cor.)", "Spine (sag.)",
)  # fmt: skip
"""The classes in SonoNet's output order."""

FRAME_SHAPE = (224, 288)
"""Rows and columns of a stored frame, as the papers store them."""

_SECTOR_HALF_ANGLE = 0.62
"""Half the opening of the fan (radians)."""


@dataclass(frozen=True, eq=False)
class PhantomFrame:
    """One synthetic frame.

    Parameters
    ----------
    pixels
        uint8, shape :data:`FRAME_SHAPE` (row, column).
    label
        One of :data:`PLANES`.
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
    """Echo strength around a structure in its own coordinates: (u, v) in about [-1, 1], rotated and scaled into the frame."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        rows, columns = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in FRAME_SHAPE], indexing="ij")
        self.scale = generator.uniform(38, 56)
        centre = np.array([FRAME_SHAPE[0] * 0.53, FRAME_SHAPE[1] * 0.5]) + generator.normal(0, 9, 2)
        angle = generator.normal(0, 0.3)
        down, right = (rows - centre[0]) / self.scale, (columns - centre[1]) / self.scale
        self.u = right * np.cos(angle) + down * np.sin(angle)
        self.v = -right * np.sin(angle) + down * np.cos(angle)
        self.echo = np.full(FRAME_SHAPE, 0.22)
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


def _background(sketch: _Sketch) -> None:
    generator = sketch.generator
    for _ in range(int(generator.integers(2, 7))):
        at = (float(generator.uniform(-1.6, 1.6)), float(generator.uniform(-1.4, 1.4)))
        semi = (float(generator.uniform(0.1, 0.7)), float(generator.uniform(0.1, 0.5)))
        sketch.blob(at, semi, float(generator.choice([0.05, 0.25, 0.55, 0.75])))
    end = float(generator.uniform(-1, 1))
    sketch.stroke([(-1.4, end), (0, float(generator.uniform(-1, 1))), (1.4, -end)], 0.7, width=0.12)


_DRAW: dict[str, Draw] = dict(
    zip(
        PLANES,
        (
            _three_vessels, _four_chambers, _abdominal, _background, _brain_cerebellum, _brain_ventricle, _femur, _kidneys,
            _lips, _left_outflow, _profile, _right_outflow, _spine_coronal, _spine_sagittal,
        ),
        strict=True,
    )
)  # fmt: skip


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
        If the label is none of :data:`PLANES`.
    """
    draw = _DRAW[label]
    generator = np.random.default_rng([zlib.crc32(label.encode()), seed, subject, frame])
    scanner = np.random.default_rng([seed, subject])
    sketch = _Sketch(generator)
    draw(sketch)
    pixels = _scan(sketch.echo, generator, scanner)
    return PhantomFrame(pixels, label, None if label == "Background" else _box(sketch.extent), f"subject_{subject:04d}")


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
    rows, columns = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in FRAME_SHAPE], indexing="ij")
    depth = rows + 0.35 * FRAME_SHAPE[0]
    sideways = columns - FRAME_SHAPE[1] / 2
    radius = np.hypot(depth, sideways)
    amplitude *= gain * np.exp(-attenuation * rows / FRAME_SHAPE[0])
    picture = np.log1p(6 * amplitude) / np.log1p(6)
    fan = (np.abs(np.arctan2(sideways, depth)) < _SECTOR_HALF_ANGLE) & (radius > 0.36 * FRAME_SHAPE[0])
    fan &= radius < 1.33 * FRAME_SHAPE[0]
    return np.asarray(np.where(fan, np.clip(picture, 0, 1) * 230, 0), dtype=np.uint8)
