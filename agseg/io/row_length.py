"""Whether the rows of a slice lie below each other: a header that swaps rows and columns shears the picture, at the same size.

In a picture of a body a row is like the next one. Where the header's row length is wrong, pixels are like those at another
distance in memory, and hardly like those that the header puts below them. Rows of exactly twice their length are not found:
they are as unlike as every second row of a sound picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError

SLICES = 3
"""So many slices from the middle are looked at; most of them must agree."""

SHORTEST_ROW = 16

NEAR = 3
"""Distances this close to a row's length (pixels) are the row's length: slanted edges are most alike a little beside it."""

LEAST_UNLIKENESS = 0.2
"""Rows that are less unlike than this (1 minus their correlation) are a picture, whatever is more alike."""

LEAST_RATIO = 3.0
"""Another distance must be so much less unlike. Half a row away, layers are half as unlike as a row away."""


def check_rows(slices: NDArray[Any]) -> None:
    """Refuse slices (slices, rows, columns) whose rows do not have the length that the header says.

    Raises
    ------
    InputError
        ``E_HEADER_LIES``.
    """
    _, rows, columns = slices.shape
    if min(rows, columns) < SHORTEST_ROW:
        return
    middle = len(slices) // 2
    chosen = slices[max(0, middle - SLICES // 2) : middle + SLICES // 2 + 1]
    found = [length for one in chosen if (length := _other_length(one)) is not None]
    if 2 * len(found) > len(chosen):
        raise InputError(
            "the rows of the picture have another length than the header says: it is sheared",
            code=Code.HEADER_LIES,
            value=f"{columns} columns",
            expected=f"about {int(np.median(found))}",
        )


def _other_length(picture: NDArray[Any]) -> int | None:
    """A distance in memory at which pixels are far more alike than those below each other."""
    columns = picture.shape[1]
    values = picture.astype(np.float32).ravel()
    values -= values.mean(dtype=np.float64)
    # Correlation at every distance at once (Wiener and Khinchin); twice the length, so that no end meets a beginning.
    spectrum = np.fft.rfft(values, 2 * values.size)
    np.multiply(spectrum, spectrum.conj(), out=spectrum)
    sums = np.fft.irfft(spectrum)[: values.size].astype(np.float64)
    if sums[0] <= 0:
        return None
    unlike = 1 - sums / sums[0]
    below = float(unlike[columns - NEAR : columns + NEAR + 1].min())
    if below < LEAST_UNLIKENESS:
        return None
    shortest, longest = columns // 2, min(2 * columns + NEAR, values.size // 2)
    best = shortest + int(np.argmin(unlike[shortest : longest + 1]))
    return best if unlike[best] * LEAST_RATIO < below else None
