"""Mapping between a model grid and its source grid: three axis maps, kept so that the mask can be carried back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agseg.grid import Grid
from agseg.inference.axis import AxisMap
from agseg.weights.input_spec import Carry, GridRule, InputSpec

ANISOTROPY = 3.0
"""Slices are thick where the coarsest spacing is more than this many times the finest (nnU-Net's threshold)."""

SAME_SPACING = 1e-4
"""Relative difference below which two spacings are one: headers keep single precision."""


@dataclass(frozen=True)
class AxisLink:
    """One axis of the model grid: source index along ``source_axis`` = offset + scale * model index."""

    source_axis: int
    scale: float
    offset: float


@dataclass(frozen=True)
class ModelGrid:
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
    nearest_in, nearest_out
        Model axes along which the image, or what is carried back, takes the nearest voxel instead of blending several.
    """

    source: Grid
    shape: tuple[int, int, int]
    links: tuple[AxisLink, AxisLink, AxisLink]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    nearest_in: tuple[int, ...] = ()
    nearest_out: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, source: Grid, spec: InputSpec, *, start: Sequence[int] = (0, 0, 0), stop: Sequence[int] | None = None
    ) -> ModelGrid:
        """The model grid of ``spec`` over a box of the source; over all of it by default."""
        if spec.spacing_mm is None:
            raise ValueError("these weights need a box, not a spacing")
        axis_codes = spec.axis_codes_on(source.axis_codes)
        if spec.grid is GridRule.FIRST_VOXEL:
            return cls.at_spacing(source, axis_codes=axis_codes, spacing_mm=spec.spacing_mm)
        stop = source.shape if stop is None else stop
        oriented, permutation, _ = source.reoriented(axis_codes)
        old = oriented.spacing_mm
        # A spacing of 0 is the scan's own.
        new = tuple(wanted or own for wanted, own in zip(spec.spacing_mm, old, strict=True))
        size = [stop[axis] - start[axis] for axis in permutation]
        shape = tuple(max(1, round(o / n * count)) for o, n, count in zip(old, new, size, strict=True))
        made = cls.of_box(
            source,
            axis_codes=axis_codes,
            shape=(shape[0], shape[1], shape[2]),
            start=start,
            stop=stop,
            corners=spec.grid is GridRule.CORNERS,
        )
        nearest_in = coarse_axis(old, new) if spec.separate_z else ()
        nearest_out = coarse_axis(new, old) if spec.separate_z else ()
        # Labels at the nearest voxel are those of the scores there.
        return replace(made, nearest_in=nearest_in, nearest_out=(0, 1, 2) if spec.carry is Carry.LABELS else nearest_out)

    @classmethod
    def at_spacing(cls, source: Grid, *, axis_codes: str, spacing_mm: Sequence[float]) -> ModelGrid:
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
        cls,
        source: Grid,
        *,
        axis_codes: str,
        shape: tuple[int, int, int],
        start: Sequence[int],
        stop: Sequence[int],
        corners: bool = False,
    ) -> ModelGrid:
        """A box of the source stretched to a fixed shape, half-pixel centres (what resizing an image means).

        With ``corners`` the first and last voxel centres coincide instead of the outer edges.
        """
        _, permutation, flips = source.reoriented(axis_codes)
        links = []
        for a, (axis, flip) in enumerate(zip(permutation, flips, strict=True)):
            size = stop[axis] - start[axis]
            scale, low = size / shape[a], 0.5 * size / shape[a] - 0.5
            if corners and shape[a] > 1 and size > 1:
                scale, low = (size - 1) / (shape[a] - 1), 0.0
            links.append(AxisLink(axis, -scale, stop[axis] - 1 - low) if flip else AxisLink(axis, scale, start[axis] + low))
        box = tuple(int(n) for n in start), tuple(int(n) for n in stop)
        return cls(source, shape, (links[0], links[1], links[2]), *box)  # type: ignore[arg-type]

    def cropped(self, start: Sequence[int], stop: Sequence[int]) -> ModelGrid:
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
        box = tuple(low), tuple(high)
        return ModelGrid(self.source, shape, links, *box, self.nearest_in, self.nearest_out)  # type: ignore[arg-type]

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
        """Model coordinate of every source index along an axis (whole source, clamped to the model grid).

        Along :attr:`nearest_out` they are whole numbers.
        """
        a, link = self._model_axis(source_axis)
        index = np.arange(self.source.shape[source_axis])
        if a in self.nearest_out:
            start, stop = self.start[source_axis], self.stop[source_axis]
            inside = AxisMap(self.shape[a], stop - start, 1.0 / link.scale, (start - link.offset) / link.scale).nearest
            return inside.astype(np.float64)[np.clip(index - start, 0, stop - start - 1)]
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


def coarse_axis(current_mm: Sequence[float], new_mm: Sequence[float]) -> tuple[int, ...]:
    """The one axis of thick slices when going from one spacing to another, or none (nnU-Net's ``determine_do_sep_z_and_axis``).

    The current spacing is asked first. Where two axes are equally coarse there are no slices.
    """
    for spacing in (current_mm, new_mm):
        coarsest = max(spacing)
        if coarsest / min(spacing) > ANISOTROPY:
            axes = tuple(axis for axis, side in enumerate(spacing) if coarsest - side < SAME_SPACING * coarsest)
            return axes if len(axes) == 1 else ()
    return ()
