"""Voxels bound to the grid they live on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.slabs import slabs

__all__ = ["FAT_HU", "HU_MAX", "HU_MIN", "OTHER_HU", "LabelMask", "Quantity", "Volume", "Warned"]

HU_MIN = -1024
"""Air outside the field of view; padding, NaN and Inf are read as this (HU)."""

HU_MAX = 3071
"""Largest value of 12-bit CT; metal is clipped to it (HU)."""

FAT_HU = -30.0
"""What is thinner than this is fat, air or lung, and no parenchyma (HU)."""

OTHER_HU = 60.0
"""What is further than this from an organ's median is likely to be something else (HU)."""


class Quantity(StrEnum):
    """What a voxel value measures."""

    HU = "HU"
    SIGNAL = "signal"

    @classmethod
    def of(cls, modality: str) -> Quantity:
        """What a scan of this DICOM modality measures: HU for CT, a signal without a scale for all others."""
        return cls.HU if modality == "CT" else cls.SIGNAL


@dataclass(frozen=True)
class Warned:
    """A warning that travels with a study into its record: a ``W_`` code and one sentence."""

    code: Code
    message: str

    def to_dict(self) -> dict[str, str]:
        """As it stands in run.json."""
        return {"code": str(self.code), "message": self.message}


@dataclass(frozen=True, eq=False)
class Volume:
    """An image and where it is.

    Parameters
    ----------
    voxels
        Shape (i, j, k) = ``grid.shape``; int16 where all values are whole, else float32. HU are within
        [:data:`HU_MIN`, :data:`HU_MAX`]. Usually Fortran-ordered: slices lie one behind the other in memory.
    grid
        Index to RAS+ mm.
    quantity, modality
        HU for CT, a signal for MR; ``modality`` is DICOM's (``"CT"``, ``"MR"``, ...).
    warnings
        What the reader had to note about this study.
    more
        Further channels (registered series), each float32 (i, j, k) as stored; ``voxels``, ``quantity`` and ``modality`` are
        the first one's.
    """

    voxels: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid
    quantity: Quantity = Quantity.HU
    modality: str = "CT"
    warnings: tuple[Warned, ...] = field(default=())
    more: tuple[NDArray[np.float32], ...] = field(default=())

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise InputError(
                "voxels and grid differ in shape", code=Code.DIMENSIONS, value=self.voxels.shape, expected=self.grid.shape
            )
        if self.voxels.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise InputError("voxels must be int16 or float32", code=Code.DTYPE, value=self.voxels.dtype)
        for channel in self.more:
            if channel.shape != self.voxels.shape:
                raise InputError(
                    "the channels differ in shape", code=Code.DIMENSIONS, value=channel.shape, expected=self.voxels.shape
                )


@dataclass(frozen=True, eq=False)
class LabelMask:
    """A label per voxel and where it is.

    Parameters
    ----------
    labels
        uint8, shape (i, j, k) = ``grid.shape``; 0 is background, every other value is an index of ``label_set``.
    grid
        Index to RAS+ mm; for a result always the source's own grid.
    label_set
        What the values mean.
    """

    labels: NDArray[np.uint8]
    grid: Grid
    label_set: LabelSet

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise InputError(
                "mask and grid differ in shape", code=Code.DIMENSIONS, value=self.labels.shape, expected=self.grid.shape
            )
        if self.labels.dtype != np.uint8:
            raise InputError("a mask is uint8", code=Code.DTYPE, value=self.labels.dtype)
        known = np.zeros(256, dtype=bool)
        known[[0, *(label.index for label in self.label_set)]] = True
        present = np.zeros(256, dtype=bool)
        for (slab,) in slabs(self.labels):
            present[slab[slab != 0]] = True
        unknown = np.flatnonzero(present & ~known).tolist()
        if unknown:
            raise InputError("the mask holds unknown labels", code=Code.DTYPE, value=unknown)

    def of(self, name: str) -> NDArray[np.bool_]:
        """Boolean mask (i, j, k) of one organ."""
        return np.asarray(self.labels == self.label_set[name].index)
