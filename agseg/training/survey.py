"""What a cohort's training cases are like: spacing, size, values under the labels (nnU-Net's fingerprint).."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.training.cohort import Cohort

AXES = "RAS"
"""How the axes of a survey grow: to the right, to the front, up."""

SAMPLES_PER_CASE = 10_000
"""Values under the labels that are kept of each case and channel."""


@dataclass(frozen=True)
class ChannelValues:
    """Values of one channel under the labels, over all cases (HU or signal)."""

    name: str
    modality: str
    mean: float
    sd: float
    low: float
    high: float
    """The 0.5th and 99.5th percentile."""


@dataclass(frozen=True)
class Survey:
    """What training cases are like.

    Parameters
    ----------
    cases
        How many were read.
    spacings_mm, shapes
        Per case, along the axes :data:`AXES`; pictures have (1, 1, 1) and (columns, rows, 1).
    channels
        Values per channel; empty for pictures.
    cases_with
        Label to the number of cases that it occurs in.
    """

    cases: int
    spacings_mm: NDArray[np.float64]
    shapes: NDArray[np.int64]
    channels: tuple[ChannelValues, ...]
    cases_with: dict[str, int]

    @property
    def extents_mm(self) -> NDArray[np.float64]:
        """Size of each case (case, axis)."""
        return self.spacings_mm * self.shapes


def survey(cohort: Cohort, ids: Sequence[str], *, progress: Callable[[int, int, str], None] | None = None) -> Survey:
    """Read cases once.

    Raises
    ------
    RecipeError
        If not one voxel is labelled.
    """
    spacings, shapes = [], []
    samples: list[list[NDArray[np.float64]]] = []
    cases_with = dict.fromkeys(cohort.label_set.names, 0)
    for number, case_id in enumerate(ids, start=1):
        volume = cohort.read_volume(case_id)
        mask = cohort.read_mask(case_id, grid=volume.grid)
        oriented, _, _ = volume.grid.reoriented(AXES)
        spacings.append(oriented.spacing_mm)
        shapes.append(oriented.shape)
        present = set(np.unique(mask.labels).tolist())
        for label in cohort.label_set:
            cases_with[label.name] += label.index in present
        inside = np.flatnonzero(np.isin(mask.labels, [label.index for label in cohort.label_set]).ravel(order="F"))
        if inside.size > SAMPLES_PER_CASE:
            inside = np.random.default_rng(number).choice(inside, SAMPLES_PER_CASE, replace=False)
        samples.append([np.asarray(v.ravel(order="F")[inside], dtype=np.float64) for v in (volume.voxels, *volume.more)])
        if progress:
            progress(number, len(ids), case_id)
    together = [np.concatenate(channel) for channel in zip(*samples, strict=True)]
    if not together or not together[0].size:
        raise RecipeError("not one voxel of these cases is labelled", path=cohort.root, value=f"{len(ids)} cases")
    names = cohort.channels or cohort.modalities
    channels = tuple(
        _values(name, modality, values) for name, modality, values in zip(names, cohort.modalities, together, strict=True)
    )
    return Survey(len(ids), np.array(spacings), np.array(shapes), channels, cases_with)


def _values(name: str, modality: str, values: NDArray[np.float64]) -> ChannelValues:
    low, high = np.percentile(values, (0.5, 99.5))
    return ChannelValues(name, modality, float(values.mean()), float(values.std()), float(low), float(high))
