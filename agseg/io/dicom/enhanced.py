"""Geometry and rescale of an enhanced multi-frame CT or MR, from its functional groups.

Source: DICOM PS3.3 C.7.6.16 (Multi-frame Functional Groups): a macro stands either in the shared groups, for all frames, or
in each frame's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.dataset import open_dataset
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.dicom.stack import Plane

MOST_FRAMES = 20_000
"""More frames than this are a header that lies."""

_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What the functional groups say of one frame: where it lies, how its values are scaled, and when it was acquired."""

    plane: Plane
    slope: float | None
    intercept: float | None
    rescale_type: str
    moment: tuple[int | None, int | None]


def enhanced_frames(header: SliceHeader) -> list[FrameFacts]:
    """Plane and rescale of each frame, in the order of the file.

    Raises
    ------
    InputError
        ``E_NO_GEOMETRY`` without functional groups, ``E_HEADER_LIES`` if they are not one per frame.
    """
    if not 1 <= header.frames <= MOST_FRAMES:
        raise InputError("implausible NumberOfFrames", code=Code.HEADER_LIES, value=header.frames)
    try:
        dataset = open_dataset(header.path, with_pixels=False, only=_GROUPS)
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
        per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
        if shared is None and not per_frame:
            raise InputError("an enhanced image without functional groups", code=Code.NO_GEOMETRY)
        if len(per_frame) != header.frames:
            raise InputError(
                "functional groups and NumberOfFrames differ",
                code=Code.HEADER_LIES,
                value=len(per_frame),
                expected=header.frames,
            )
        return [_facts(header, shared, own) for own in per_frame]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the functional groups cannot be read ({type(error).__name__})", code=Code.HEADER_INVALID, path=header.path
        ) from None


def _facts(header: SliceHeader, shared: Any, own: Any) -> FrameFacts:
    position = _macro(shared, own, "PlanePositionSequence")
    orientation = _macro(shared, own, "PlaneOrientationSequence")
    measures = _macro(shared, own, "PixelMeasuresSequence")
    rescale = _macro(shared, own, "PixelValueTransformationSequence")
    plane = Plane(
        header.rows,
        header.columns,
        _numbers(position, "ImagePositionPatient"),
        _numbers(orientation, "ImageOrientationPatient"),
        _numbers(measures, "PixelSpacing"),
    )
    slope, intercept = _numbers(rescale, "RescaleSlope"), _numbers(rescale, "RescaleIntercept")
    rescale_type = "" if rescale is None else str(rescale.get("RescaleType") or "").strip(" \0")
    return FrameFacts(
        plane,
        slope[0] if slope else header.slope,
        intercept[0] if intercept else header.intercept,
        rescale_type or header.rescale_type,
        _moment(own),
    )


def _moment(own: Any) -> tuple[int | None, int | None]:
    """Temporal position and acquisition of a frame, where it has them."""
    content = (own.get("FrameContentSequence") or [None])[0]
    numbers = (None if content is None else content.get(name) for name in ("TemporalPositionIndex", "FrameAcquisitionNumber"))
    temporal, acquisition = (None if number in (None, "") else int(number) for number in numbers)
    return temporal, acquisition


def _macro(shared: Any, own: Any, keyword: str) -> Any:
    for group in (own, shared):
        items = None if group is None else group.get(keyword)
        if items:
            return items[0]
    return None


def _numbers(macro: Any, keyword: str) -> tuple[float, ...] | None:
    value = None if macro is None else macro.get(keyword)
    if value is None or value == "":
        return None
    return tuple(float(part) for part in value) if hasattr(value, "__iter__") else (float(value),)
