"""Values that cannot be what the header says: bits beyond BitsStored, and HU that no CT of a body has.

A rescale that was lost or doubled, on all slices or on some, moves air, fat and tissue by the same amount; a network segments
what it is given, and the volumes are wrong by factors. So the values are held against what every CT of a body has, and every
slice against its neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.io.dicom.pixels import Rescale
from agseg.io.row_length import check_rows
from agseg.io.slice_jumps import check_no_jumps
from agseg.io.voxels import (
    BONE_HU,
    LARGEST_SHARE_CLIPPED,
    LARGEST_SHARE_OF_BONE,
    LEAST_SHARE_BELOW_WATER,
    LEAST_SHARE_OF_AIR,
    LEAST_SHARE_OF_TISSUE,
    LUNG_HU,
)
from agseg.volume import HU_MAX, HU_MIN

SAMPLE_VOXELS = 4_000_000
"""Of larger volumes every n-th row and column is looked at."""

LEAST_RANGE_HU = 50
"""From the lowest to the highest value of a CT it is at least this far."""

LEAST_SHARE_OF_LARGE_VALUES = 0.02
"""Of the pixel edges where bits beyond BitsStored change: if this share is smooth with these bits, they are values."""

MOST_RESCALES = 8
"""More than this are a rescale of each slice's own, as some scanners have; its slices are held against each other only."""


def has_foreign_bits(stored: NDArray[Any], scale: Rescale) -> bool:
    """Whether bits beyond BitsStored are set that are neither sign nor padding: an old overlay, which is masked.

    Parameters
    ----------
    stored
        Unsigned bit patterns (rows, columns).

    Raises
    ------
    InputError
        ``E_HEADER_LIES`` if they are parts of the values: then the header's BitsStored is too small.
    """
    if int(stored.max(initial=0)) >> scale.bits_stored == 0:
        return False
    patterns = stored.astype(np.int32)
    high = patterns >> scale.bits_stored
    filled = (1 << (scale.bits_allocated - scale.bits_stored)) - 1
    own = high == 0
    if scale.signed:
        own |= (high == filled) & ((patterns >> (scale.bits_stored - 1) & 1) == 1)
    as_written = np.where(patterns >> (scale.bits_allocated - 1), patterns - (1 << scale.bits_allocated), patterns)
    as_written = as_written if scale.signed else patterns
    if scale.padding is not None:
        limit = scale.padding if scale.padding_limit is None else scale.padding_limit
        padded = (as_written >= min(scale.padding, limit)) & (as_written <= max(scale.padding, limit))
    else:
        padded = np.zeros(own.shape, dtype=bool)
    if (own | padded).all():
        return False
    if _are_values(as_written, patterns & ((1 << scale.bits_stored) - 1), ~padded):
        raise InputError(
            "values are larger than BitsStored allows",
            code=Code.HEADER_LIES,
            value=f"{int(high[~padded].max()).bit_length() + scale.bits_stored} bits",
            expected=f"{scale.bits_stored}",
        )
    return True


def _are_values(whole: NDArray[np.int32], masked: NDArray[np.int32], usable: NDArray[np.bool_]) -> bool:
    """Whether the picture hangs together with the bits beyond BitsStored rather than without them."""
    offset = whole - masked
    edges = (offset[:, 1:] != offset[:, :-1]) & usable[:, 1:] & usable[:, :-1]
    if not edges.any():
        # No overlay covers a whole slice.
        return True
    with_them = np.abs(np.diff(whole, axis=1))[edges]
    without = np.abs(np.diff(masked, axis=1))[edges]
    return bool((with_them < without).mean() >= LEAST_SHARE_OF_LARGE_VALUES)


def check_hu(voxels: NDArray[Any], scales: Sequence[Rescale]) -> None:
    """Refuse a volume (slices, rows, columns; HU) whose values, or those of slices with one rescale, are no HU.

    Raises
    ------
    InputError
        ``E_NOT_HU``, ``E_HEADER_LIES`` if the slices are sheared, or ``E_EMPTY_IMAGE`` if every voxel is the same.
    """
    check_rows(voxels)
    step = max(1, int(np.sqrt(voxels.size / SAMPLE_VOXELS)))
    sample = voxels[:, ::step, ::step]
    groups: dict[tuple[float, float], list[int]] = {}
    for k, scale in enumerate(scales):
        groups.setdefault((scale.slope, scale.intercept), []).append(k)
    if len(groups) <= MOST_RESCALES:
        for slices in groups.values():
            _check_values(sample[slices] if len(groups) > 1 else sample, whole=len(groups) == 1)
    else:
        _check_values(sample, whole=True)
    check_no_jumps(sample, [(scale.slope, scale.intercept) for scale in scales])


def _check_values(sample: NDArray[Any], *, whole: bool) -> None:
    known = sample[sample > HU_MIN]
    bone = np.count_nonzero(known > BONE_HU) / max(known.size, 1)
    air = np.count_nonzero(known < LUNG_HU) / max(known.size, 1)
    if bone > LARGEST_SHARE_OF_BONE and air < LEAST_SHARE_OF_AIR:
        raise InputError(
            "the values are no HU: the rescale may have been lost",
            code=Code.NOT_HU,
            value=f"{bone:.0%} of the voxels above {BONE_HU} HU and {air:.1%} below {LUNG_HU}",
        )
    if not whole:
        return
    tissue = np.count_nonzero(known >= LUNG_HU) / max(known.size, 1)
    if tissue < LEAST_SHARE_OF_TISSUE:
        raise InputError(
            "the values are no HU: nothing is as dense as tissue",
            code=Code.NOT_HU,
            value=f"{tissue:.1%} of the voxels at {LUNG_HU} HU or above",
            expected=f"at least {LEAST_SHARE_OF_TISSUE:.1%}",
        )
    below_water = np.count_nonzero(sample < 0) / sample.size
    clipped = np.count_nonzero(sample >= HU_MAX) / sample.size
    low, high = float(sample.min()), float(sample.max())
    # Less is asked than of formats without a modality: the header says CT, and it may be a small part of one.
    if below_water < LEAST_SHARE_BELOW_WATER or clipped > LARGEST_SHARE_CLIPPED or high - low < LEAST_RANGE_HU:
        raise InputError(
            "the values are no HU",
            code=Code.NOT_HU,
            value=f"{low:.5g} to {high:.5g}, {below_water:.1%} of the voxels below 0 and {clipped:.1%} above {HU_MAX}",
            expected=f"at least {LEAST_SHARE_BELOW_WATER:.0%} and at most {LARGEST_SHARE_CLIPPED:.0%}",
        )
