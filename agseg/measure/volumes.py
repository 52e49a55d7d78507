"""Measurements of each organ: ml, voxels, HU, surface and extent, and whether the field of view cuts it off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.measure.intensity import histograms, spread
from agseg.measure.runs import Runs, find_runs
from agseg.measure.shape import Shape, shapes
from agseg.report import Measurement, OrganStatus
from agseg.slabs import slabs
from agseg.volume import LabelMask, Quantity, Volume

__all__ = ["Survey", "measure", "survey"]

_VALUES = 256


@dataclass(frozen=True, eq=False)
class Survey:
    """What walking through a mask and its image gives.

    Parameters
    ----------
    runs
        Of all labels but 0.
    shapes
        Of every label that occurs, by label.
    histograms
        Voxels per label and whole HU (:func:`agseg.measure.intensity.histograms`); None where the image is not HU.
    """

    runs: Runs
    shapes: dict[int, Shape]
    histograms: NDArray[np.int64] | None


def survey(mask: LabelMask, volume: Volume) -> Survey:
    """Walk through mask and image (i, j, k), which are on one grid."""
    counts = histograms(mask.labels, volume.voxels) if volume.quantity is Quantity.HU else None
    runs = find_runs(mask.labels)
    return Survey(runs, shapes(mask.labels, mask.grid, runs), counts)


def measure(mask: LabelMask, volume: Volume, surveyed: Survey | None = None) -> tuple[Measurement, ...]:
    """One measurement per label of the mask's label set, in order of the index.

    An organ is ``cut_off`` if any of its voxels lies on one of the six faces of the grid: the part outside the field of view
    is not known, so its ml is that of the part inside. An organ without a voxel is ``absent`` and has no volume at all.

    Parameters
    ----------
    mask
        uint8 labels (i, j, k).
    volume
        The image (i, j, k) on the same grid; its values give the mean HU if they are HU.
    surveyed
        Of :func:`survey`, where the caller has it.

    Raises
    ------
    InputError
        ``E_DIMENSIONS`` if mask and image are not on the same grid.
    """
    if not mask.grid.matches(volume.grid):
        raise InputError("mask and image are not on the same grid", code=Code.DIMENSIONS)
    voxels, sums = _count(mask.labels, volume.voxels)
    on_border = _on_border(mask.labels)
    surveyed = surveyed or survey(mask, volume)
    spreads, shaped = surveyed.histograms, surveyed.shapes
    measurements = []
    for label in mask.label_set:
        count = int(voxels[label.index])
        if count == 0:
            measurements.append(Measurement(label.name, OrganStatus.ABSENT, voxels=0))
            continue
        cut = bool(on_border[label.index])
        measurements.append(
            Measurement(
                name=label.name,
                status=OrganStatus.CUT_OFF if cut else OrganStatus.PRESENT,
                volume_ml=count * mask.grid.voxel_volume_ml,
                voxels=count,
                mean_hu=float(sums[label.index] / count) if spreads is not None else None,
                touches_border=cut,
                hu=None if spreads is None else spread(spreads[label.index]),
                surface_cm2=shaped[label.index].surface_cm2,
                extent_mm=shaped[label.index].extent_mm,
            )
        )
    return tuple(measurements)


def _count(
    labels: NDArray[np.uint8], values: NDArray[np.int16] | NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels and sum of image values per label value, int64 and float64 of length 256."""
    voxels = np.zeros(_VALUES, dtype=np.int64)
    sums = np.zeros(_VALUES, dtype=np.float64)
    for marked, image in slabs(labels, values):
        inside = marked > 0
        found = marked[inside]
        if found.size:
            voxels += np.bincount(found, minlength=_VALUES)
            sums += np.bincount(found, weights=image[inside], minlength=_VALUES)
    return voxels, sums


def _on_border(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each label value occurs on one of the six faces, bool of length 256."""
    present = np.zeros(_VALUES, dtype=bool)
    for axis in range(labels.ndim):
        for end in (0, -1):
            # A view: np.take would first copy the whole volume into another order of memory.
            present[np.unique(labels[(slice(None),) * axis + (end,)])] = True
    return present
