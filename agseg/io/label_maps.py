"""Telling a label map from a CT, in formats that say neither.

A label map holds whole numbers from 0 to 255 and nothing else; a CT has air. The voxels are read from the front and reading
stops at the first value that no label map has, which in a CT is nearly always within the first megabyte. A picture of 8 bits
holds such numbers too, but it has grey values from end to end, and they change from voxel to voxel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import InputError
from agseg.io.voxels import LABEL_LIMIT

LONGEST_SEARCH_BYTES = 512 * 1024**2
"""Longer files are not searched to their end; a label map among them is rejected when it is read."""

MOST_LABELS = 180
"""A picture has more different values than this; the largest known label sets have 118."""

FEWEST_GREYS = 24
"""A picture has at least this many."""

LARGEST_SHARE_CHANGED = 0.4
"""At most this share of a label map's foreground differs from the voxel before; of a picture, most does."""


def is_label_map(values: Iterable[NDArray[Any]]) -> bool:
    """Whether all voxels are whole numbers from 0 to LABEL_LIMIT that make no picture, and not all of a wide type are 0.

    Parameters
    ----------
    values
        The voxels' values in their order, in pieces; an InputError of theirs is left to who reads the volume.
    """
    seen = np.zeros(LABEL_LIMIT + 1, dtype=np.int64)
    changed = searched = 0
    wide = False
    try:
        for piece in values:
            if not _only_labels(piece):
                return False
            labels = piece.astype(np.uint8, copy=False)
            wide = piece.dtype.itemsize > 1
            seen += np.bincount(labels, minlength=LABEL_LIMIT + 1)
            changed += int(np.count_nonzero((labels[1:] != labels[:-1]) & (labels[1:] != 0)))
            searched += piece.nbytes
            if searched > LONGEST_SEARCH_BYTES:
                return False
    except InputError:
        return False
    foreground = int(seen[1:].sum())
    if _is_picture(int(np.count_nonzero(seen)), changed, foreground):
        return False
    return foreground > 0 or not wide


def _is_picture(different: int, changed: int, foreground: int) -> bool:
    if different > MOST_LABELS:
        return True
    return different >= FEWEST_GREYS and changed > LARGEST_SHARE_CHANGED * foreground


def _only_labels(values: NDArray[Any]) -> bool:
    if not (values.min() >= 0 and values.max() <= LABEL_LIMIT):
        return False
    return values.dtype.kind != "f" or bool((values == np.rint(values)).all())
