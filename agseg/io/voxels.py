"""From stored numbers of any type to the voxels of a Volume, slab by slab, so that little memory is needed beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.io.row_length import check_rows
from agseg.io.slice_jumps import check_no_jumps
from agseg.slabs import slabs
from agseg.volume import HU_MAX, HU_MIN, Warned

INT16 = np.iinfo(np.int16)

_LARGEST_FACTOR = 1 << 14
"""A 16-bit value times this, plus this, fits into 32 bits."""

SLAB_VOXELS = 4_000_000
"""Voxels converted at a time."""

SAMPLE_VOXELS = 1_000_000
"""About how many voxels, spread evenly, are enough to judge densities by."""

LEAST_SHARE_BELOW_WATER = 0.01
"""A CT of a body has at least this share of voxels below 0 HU."""

LARGEST_SHARE_CLIPPED = 0.05
"""And at most this share above HU_MAX."""

LOWEST_OF_A_BODY_HU = -50
"""Fat lies near -100 HU, so the lowest value of a CT of a body is at most this."""

LEAST_RANGE_HU = 150
"""And from there to the highest value it is at least this far: from fat to muscle, without bone, gas and contrast medium."""

BONE_HU, LUNG_HU = 700, -200
LARGEST_SHARE_OF_BONE = 0.1
"""A CT of a body has at most this share of voxels above BONE_HU, unless there is air or lung (below LUNG_HU) beside it."""

LEAST_SHARE_OF_AIR = 0.01

LEAST_SHARE_OF_TISSUE = 0.001
"""And at least this share at LUNG_HU or above: a rescale that was applied twice leaves none."""

HOLLOW_RATIO = 250
"""The noise of a CT packs to a tenth at best, with all the air around it to a fiftieth."""

SMALLEST_HOLLOW_BYTES = 64 * 1024**2
"""Smaller volumes are unpacked and looked at."""

AIR_HU = -500
LARGEST_SHARE_OF_AIR = 0.01
"""An MR signal has at most this share of voxels at AIR_HU or below; the air around a body in a CT is more."""

LABEL_LIMIT = 255
"""A volume of whole numbers from 0 to this is a label map, not a CT."""

LABEL_TOLERANCE = 1e-3
"""A label may lie this far from a whole number: what a detour over float32 or a scale factor costs."""


def as_hounsfield(
    stored: NDArray[Any], scale: tuple[float, float] | None, *, in_place: bool = False
) -> tuple[NDArray[np.int16] | NDArray[np.float32], tuple[Warned, ...]]:
    """HU of the stored values.

    Parameters
    ----------
    stored
        (i, j, k), any real dtype, Fortran-ordered.
    scale
        (slope, intercept), or None if the values are HU already.
    in_place
        Whether nobody else needs ``stored``: 16-bit values may then become HU where they are.

    Returns
    -------
    voxels
        Same shape, Fortran-ordered, clipped to [HU_MIN, HU_MAX]; int16 if every value is whole, else float32.
    warnings
        ``W_NONFINITE`` if some values were NaN or infinite; they become HU_MIN.
    """
    return _as_values(stored, scale, _HU, in_place=in_place)


def as_signal(
    stored: NDArray[Any], scale: tuple[float, float] | None
) -> tuple[NDArray[np.int16] | NDArray[np.float32], tuple[Warned, ...]]:
    """The signal of an MR: as :func:`as_hounsfield`, but nothing is clipped, and what was NaN or infinite becomes 0.

    int16 if every value is whole and int16 has room for it, else float32.
    """
    return _as_values(stored, scale, _SIGNAL)


@dataclass(frozen=True)
class _Range:
    """What a quantity's values are clipped to (None: not at all), and what stands where there is no number."""

    limits: tuple[int, int] | None
    missing: int
    unit: str


_HU = _Range((HU_MIN, HU_MAX), HU_MIN, " HU")
_SIGNAL = _Range(None, 0, "")


def _as_values(
    stored: NDArray[Any], scale: tuple[float, float] | None, of: _Range, *, in_place: bool = False
) -> tuple[NDArray[np.int16] | NDArray[np.float32], tuple[Warned, ...]]:
    if scale == (1.0, 0.0) and stored.dtype.kind in "iu":
        scale = None
    bad = 0
    whole = _may_be_whole(stored.dtype, scale)
    # Only where no value can be found, halfway through, that int16 does not hold.
    stays = in_place and whole and of.limits is not None and stored.dtype == np.int16 and stored.flags.writeable
    voxels: NDArray[Any] = stored if stays else np.empty(stored.shape, np.int16 if whole else np.float32, order="F")
    for slab in _slabs(stored.shape):
        values = stored[slab]
        if scale is not None and _is_exact_in_int32(stored.dtype, scale):
            values = values.astype(np.int32)
            values *= np.int32(scale[0])
            values += np.int32(scale[1])
        elif scale is not None or values.dtype.kind == "f":
            values = values.astype(np.float64)
            if scale is not None:
                values = values * scale[0] + scale[1]
            finite = np.isfinite(values)
            lost = values.size - int(np.count_nonzero(finite))
            if lost:
                bad += lost
                values = np.where(finite, values, of.missing)
            if whole and (values != np.rint(values)).any():
                return _as_fractions(stored, scale, of)
        if of.limits is not None:
            values = np.clip(values, *of.limits)
        elif whole and values.size and not (INT16.min <= values.min() and values.max() <= INT16.max):
            return _as_fractions(stored, scale, of)
        voxels[slab] = values
    return voxels, _nonfinite(bad, of)


def as_labels(stored: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Label values as the file means them.

    Parameters
    ----------
    stored
        (i, j, k), any real dtype, Fortran-ordered.
    scale
        (slope, intercept), or None if the values are as stored.

    Returns
    -------
    ndarray
        uint8, same shape, Fortran-ordered; ``stored`` itself where it is uint8 already and has no scale.

    Raises
    ------
    InputError
        ``E_DTYPE`` if a value is no whole number from 0 to :data:`LABEL_LIMIT` within :data:`LABEL_TOLERANCE`.
    """
    if scale is None and stored.dtype == np.uint8:
        return stored
    labels = np.empty(stored.shape, dtype=np.uint8, order="F")
    for slab in _slabs(stored.shape):
        values = stored[slab]
        if scale is not None or values.dtype.kind == "f":
            values = values.astype(np.float64)
            if scale is not None:
                values = values * scale[0] + scale[1]
            whole = np.rint(values)
            with np.errstate(invalid="ignore"):
                # Written so that NaN, which no comparison holds for, is refused too.
                _refuse_labels(values, ~(np.abs(values - whole) <= LABEL_TOLERANCE))
            values = whole
        _refuse_labels(values, (values < 0) | (values > LABEL_LIMIT))
        labels[slab] = values
    return labels


def _refuse_labels(values: NDArray[Any], wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        raise InputError(
            "a label is not a whole number that a mask can hold",
            code=Code.DTYPE,
            value=f"{values[wrong][0]:.7g}",
            expected=f"0 to {LABEL_LIMIT}",
        )


def _as_fractions(
    stored: NDArray[Any], scale: tuple[float, float] | None, of: _Range
) -> tuple[NDArray[np.float32], tuple[Warned, ...]]:
    bad = 0
    voxels = np.empty(stored.shape, dtype=np.float32, order="F")
    slope, intercept = scale or (1.0, 0.0)
    for slab in _slabs(stored.shape):
        values = stored[slab].astype(np.float64) * slope + intercept
        finite = np.isfinite(values)
        bad += values.size - int(np.count_nonzero(finite))
        values = np.where(finite, values, of.missing)
        voxels[slab] = values if of.limits is None else np.clip(values, *of.limits)
    return voxels, _nonfinite(bad, of)


def _may_be_whole(dtype: np.dtype[Any], scale: tuple[float, float] | None) -> bool:
    if dtype.kind == "f":
        return True
    return scale is None or all(number == round(number) for number in scale)


def _is_exact_in_int32(dtype: np.dtype[Any], scale: tuple[float, float]) -> bool:
    """Whether scaled values are whole and fit, as nearly all CT's do: 16 bits by a slope of 1. Much faster than in float64."""
    is_small = dtype.kind in "iu" and dtype.itemsize <= 2
    return is_small and all(number == round(number) and abs(number) <= _LARGEST_FACTOR for number in scale)


def _slabs(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    thickness = max(1, SLAB_VOXELS // (shape[0] * shape[1]))
    for start in range(0, shape[2], thickness):
        yield slice(None), slice(None), slice(start, start + thickness)


def _nonfinite(count: int, of: _Range) -> tuple[Warned, ...]:
    if not count:
        return ()
    return (Warned(Code.NONFINITE, f"{count} voxels were NaN or infinite and are taken as {of.missing}{of.unit}"),)


def check_not_hollow(packed_bytes: int, voxel_bytes: int) -> None:
    """Refuse voxels that are packed far smaller than an image can be, before they are unpacked: they are all the same.

    Raises
    ------
    InputError
        ``E_EMPTY_IMAGE``.
    """
    if voxel_bytes > SMALLEST_HOLLOW_BYTES and voxel_bytes > HOLLOW_RATIO * packed_bytes:
        raise InputError(
            "the voxels are packed too small to be an image",
            code=Code.EMPTY_IMAGE,
            value=f"{voxel_bytes / max(packed_bytes, 1):.0f} to 1",
            expected=f"at most {HOLLOW_RATIO} to 1",
        )


def check_looks_like_signal(voxels: NDArray[np.int16] | NDArray[np.float32]) -> None:
    """Refuse voxels that cannot be an MR, for formats that carry no modality: those with the air of a CT.

    Raises
    ------
    InputError
        ``E_EMPTY_IMAGE`` if every voxel is the same, ``E_MODALITY`` if the values are those of a CT.
    """
    low, high, air = np.inf, -np.inf, 0
    for (slab,) in slabs(voxels):
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        air += int(np.count_nonzero(slab <= AIR_HU))
    if low == high:
        raise InputError("every voxel has the same value", code=Code.EMPTY_IMAGE)
    if air > LARGEST_SHARE_OF_AIR * voxels.size:
        raise InputError(
            "the values look like HU, so this is no MR",
            code=Code.MODALITY,
            value=f"{air / voxels.size:.1%} of the voxels at {AIR_HU} or below",
            expected=f"at most {LARGEST_SHARE_OF_AIR:.0%}",
        )


def check_looks_like_hu(voxels: NDArray[np.int16] | NDArray[np.float32]) -> None:
    """Refuse voxels that cannot be a CT, for formats that carry no modality.

    Fat and air lie below water, so a CT of a body has many values below 0; a label map, an MR or a PET image has hardly any.
    And only metal lies above HU_MAX, to which the values have been clipped. Values that were made ready for a network (0 to 1,
    -1 to 1, standard deviations, thousands of HU) have air below 0 too, but neither fat at its depth nor the range of a body:
    the lowest value must lie at -50 HU or below, and the highest at least 150 HU above it. HU_MIN does not count as the lowest
    value, because fill, padding and NaN are read as it; so a slab cut out of a body, without air, without bone or set to 0
    around the body is still taken. Values clipped to a window are taken only if it begins at -50 HU or below and is at least
    150 HU wide: -50 to 100 and -160 to 240 are, but common windows of soft tissue such as -40 to 160 are refused.

    Raises
    ------
    InputError
        ``E_EMPTY_IMAGE`` if every voxel is the same, ``E_MODALITY`` if the values are not those of a CT, ``E_NOT_HU`` if
        those of some slices are not, ``E_HEADER_LIES`` if the slices are sheared.
    """
    low, high, lowest_inside, below, above = np.inf, -np.inf, float(HU_MAX), 0, 0
    for (slab,) in slabs(voxels):
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        lowest_inside = min(lowest_inside, float(np.where(slab > HU_MIN, slab, np.asarray(HU_MAX, slab.dtype)).min()))
        below += int(np.count_nonzero(slab < 0))
        above += int(np.count_nonzero(slab >= HU_MAX))
    if low == high:
        raise InputError("every voxel has the same value", code=Code.EMPTY_IMAGE)
    _check_depth(lowest_inside, high)
    below_water, clipped = below / voxels.size, above / voxels.size
    if below_water < LEAST_SHARE_BELOW_WATER or clipped > LARGEST_SHARE_CLIPPED:
        raise InputError(
            "the values do not look like HU, so this is no CT",
            code=Code.MODALITY,
            value=f"{below_water:.1%} of the voxels below 0 and {clipped:.1%} above {HU_MAX}",
            expected=f"at least {LEAST_SHARE_BELOW_WATER:.0%} and at most {LARGEST_SHARE_CLIPPED:.0%}",
        )
    check_rows(voxels.transpose(2, 1, 0))
    step = max(1, int(np.sqrt(voxels.size / SAMPLE_VOXELS)))
    sample = voxels.transpose(2, 1, 0)[:, ::step, ::step]
    _check_densities(sample)
    check_no_jumps(sample)


def _check_densities(sample: NDArray[Any]) -> None:
    """Refuse values that are turned upside down, or moved, by their shares that are as dense as bone and as air."""
    known = sample[sample > HU_MIN]
    bone = np.count_nonzero(known > BONE_HU) / max(known.size, 1)
    air = np.count_nonzero(known < LUNG_HU) / max(known.size, 1)
    if (bone > LARGEST_SHARE_OF_BONE and air < LEAST_SHARE_OF_AIR) or 1 - air < LEAST_SHARE_OF_TISSUE:
        raise InputError(
            "the values do not look like HU, so this is no CT",
            code=Code.MODALITY,
            value=f"{bone:.0%} of the voxels above {BONE_HU} and {air:.1%} below {LUNG_HU}",
        )


def _check_depth(low: float, high: float) -> None:
    if low > LOWEST_OF_A_BODY_HU or high - low < LEAST_RANGE_HU:
        raise InputError(
            "the values do not look like HU, so this is no CT",
            code=Code.MODALITY,
            value=f"{low:.5g} to {high:.5g}",
            expected=f"{LOWEST_OF_A_BODY_HU} HU or less to at least {LEAST_RANGE_HU} HU more",
        )
