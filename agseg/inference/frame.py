"""How a model grid lies on a source grid: the three axis maps, kept so that the mask finds its way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.inference.axis import AxisMap

__all__ = ["AxisLink", "Frame"]


@dataclass(frozen=True)
class AxisLink:
    """One axis of the model grid: source index along ``source_axis`` = offset + scale * model index."""

    source_axis: int
    scale: float
    offset: float


@dataclass(frozen=True)
class Frame:
    """A model grid on a rectangular source grid (or on a box of it).

    Parameters
    ----------
    source
        Grid of the volume the network works on.
    shape
        Size of the model grid, in model axis order.
    links
        One per model axis.
    start, stop
        The box of the source (per source axis) that the model grid covers; outside it the label is 0.
    """

    source: Grid
    shape: tuple[int, int, int]
    links: tuple[AxisLink, AxisLink, AxisLink]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @classmethod
    def at_spacing(cls, source: Grid, *, axis_codes: str, spacing_mm: Sequence[float]) -> Frame:
        """The whole source at a spacing (mm), axes growing towards ``axis_codes``, first voxel centre kept."""
        oriented, permutation, flips = source.reoriented(axis_codes)
        target = oriented.resampled(spacing_mm)
        links = []
        for a, (axis, flip) in enumerate(zip(permutation, flips, strict=True)):
            scale = float(spacing_mm[a]) / oriented.spacing_mm[a]
            links.append(AxisLink(axis, -scale, source.shape[axis] - 1.0) if flip else AxisLink(axis, scale, 0.0))
        return cls(source, target.shape, (links[0], links[1], links[2]), (0, 0, 0), source.shape)

    @classmethod
    def of_box(
        cls, source: Grid, *, axis_codes: str, shape: tuple[int, int, int], start: Sequence[int], stop: Sequence[int]
    ) -> Frame:
        """A box of the source stretched to a fixed shape, half-pixel centres (what resizing an image means)."""
        _, permutation, flips = source.reoriented(axis_codes)
        links = []
        for a, (axis, flip) in enumerate(zip(permutation, flips, strict=True)):
            scale = (stop[axis] - start[axis]) / shape[a]
            low = start[axis] + 0.5 * scale - 0.5
            links.append(AxisLink(axis, -scale, stop[axis] - 0.5 * scale - 0.5) if flip else AxisLink(axis, scale, low))
        box = tuple(int(n) for n in start), tuple(int(n) for n in stop)
        return cls(source, shape, (links[0], links[1], links[2]), *box)  # type: ignore[arg-type]

    def cropped(self, start: Sequence[int], stop: Sequence[int]) -> Frame:
        """The part of the model grid from ``start`` up to ``stop`` (model indices), over the whole source.

        Source voxels beyond the part get the label of its border by clamping, so the caller limits ``start``/``stop`` of the
        source box to where the part is meant to count.
        """
        links = tuple(
            AxisLink(link.source_axis, link.scale, link.offset + link.scale * first)
            for link, first in zip(self.links, start, strict=True)
        )
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        low, high = list(self.start), list(self.stop)
        for a, link in enumerate(links):
            ends = sorted((link.offset - 0.5 * link.scale, link.offset + link.scale * (shape[a] - 0.5)))
            low[link.source_axis] = max(self.start[link.source_axis], int(np.ceil(ends[0])))
            high[link.source_axis] = min(self.stop[link.source_axis], int(np.floor(ends[1])) + 1)
        return Frame(self.source, shape, links, tuple(low), tuple(high))  # type: ignore[arg-type]

    @property
    def grid(self) -> Grid:
        """The model grid in the patient's space (for exporting what lives on it)."""
        affine = np.zeros((4, 4))
        affine[3, 3] = 1.0
        origin = np.zeros(3)
        for a, link in enumerate(self.links):
            affine[:3, a] = self.source.affine[:3, link.source_axis] * link.scale
            origin[link.source_axis] = link.offset
        affine[:3, 3] = self.source.to_world([origin.tolist()])[0]
        return Grid(self.shape, affine)

    def sampling(self, source_order: Sequence[int]) -> tuple[AxisMap, AxisMap, AxisMap]:
        """Axis maps source -> model for each source axis in ``source_order``, relative to the box."""
        maps = []
        for axis in source_order:
            a, link = self._model_axis(axis)
            n_in = self.stop[axis] - self.start[axis]
            maps.append(AxisMap(n_in, self.shape[a], link.scale, link.offset - self.start[axis]))
        return maps[0], maps[1], maps[2]

    def model_coordinates(self, source_axis: int) -> NDArray[np.float64]:
        """Model coordinate of every source index along an axis (whole source, clamped to the model grid)."""
        a, link = self._model_axis(source_axis)
        index = np.arange(self.source.shape[source_axis])
        return np.clip((index - link.offset) / link.scale, 0.0, self.shape[a] - 1.0)

    def model_order(self, source_order: Sequence[int]) -> tuple[int, int, int]:
        """The model axis of each source axis in ``source_order``."""
        axes = [self._model_axis(axis)[0] for axis in source_order]
        return axes[0], axes[1], axes[2]

    def _model_axis(self, source_axis: int) -> tuple[int, AxisLink]:
        for a, link in enumerate(self.links):
            if link.source_axis == source_axis:
                return a, link
        raise ValueError(f"no model axis runs along source axis {source_axis}")
