"""Slices whose values jump against their neighbours': the rescale of some was lost, doubled, or is another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.volume import HU_MAX, HU_MIN

LARGEST_JUMP_HU = 300
"""From one slice to the next no more than this changes everywhere alike."""

SMALLEST_CHANGE_HU = 50
"""Intercepts of neighbouring slices that differ by less tell nothing."""

LEAST_LIKENESS = 0.7
"""Correlation from which two neighbouring slices show the same things."""

LEAST_USABLE_SHARE = 0.01
"""Of a slice's voxels so many must have a value that was not clipped, in both slices."""


def check_no_jumps(slices: NDArray[Any], rescales: Sequence[tuple[float, float]] | None = None) -> None:
    """Refuse neighbouring slices that show the same things at other values.

    Parameters
    ----------
    slices
        (slices, rows, columns), HU; some rows and columns are enough.
    rescales
        Slope and intercept that the header states for each slice, where it does so slice by slice.

    Raises
    ------
    InputError
        ``E_NOT_HU``.
    """
    for k in range(len(slices) - 1):
        here, there = slices[k].ravel(), slices[k + 1].ravel()
        usable = (here > HU_MIN) & (there > HU_MIN) & (here < HU_MAX) & (there < HU_MAX)
        if np.count_nonzero(usable) < LEAST_USABLE_SHARE * usable.size:
            continue
        here, there = here[usable].astype(np.float32), there[usable].astype(np.float32)
        change = there - here
        stated = 0.0 if rescales is None else _stated_change(rescales[k], rescales[k + 1])
        jump = float(np.median(change))
        lied = abs(stated) >= SMALLEST_CHANGE_HU and np.abs(change - stated).mean() < 0.5 * np.abs(change).mean()
        if lied or (abs(jump) > LARGEST_JUMP_HU and _are_alike(here, there)):
            raise InputError(
                "the values of neighbouring slices jump: the rescale of some is wrong",
                code=Code.NOT_HU,
                value=f"{stated if lied else jump:.0f} HU between slices {k + 1} and {k + 2}",
            )


def _stated_change(here: tuple[float, float], there: tuple[float, float]) -> float:
    """By how much the intercept changes where the slope does not."""
    return there[1] - here[1] if there[0] == here[0] else 0.0


def _are_alike(here: NDArray[np.float32], there: NDArray[np.float32]) -> bool:
    spread = float(here.std() * there.std())
    return spread > 0 and float(((here - here.mean()) * (there - there.mean())).mean()) / spread > LEAST_LIKENESS
