"""Whose images these are: a series belongs to one patient, one study and one frame of reference.

A correction of a patient's data that reached half of the images, or a de-identifier that gave every series the same UID, leaves
series whose images contradict each other. Such images are never put together, and half a scan is never taken for a whole one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code
from agseg.io.dicom.image import Image, span_of
from agseg.io.dicom.slice_header import SliceHeader
from agseg.study import Rejected
from agseg.volume import Warned

Owned = tuple[list[Image], Rejected | None, list[Warned]]
"""Images that stay together, why they must not be read, and what is odd about whose they are."""

SAME_PLACE_MM = 0.02

LARGEST_PLACE_MM = 1e6

SAME_DIRECTION = 0.99
"""Cosine from which two normals are the same direction."""

MOST_OWNERS = 50
"""More patients than this under one SeriesInstanceUID are not sorted out."""

_HALF_CORRECTED = Rejected(
    Code.IDENTITY, "images of one series belong to several patients or studies: a correction may have reached some of them only"
)
_ELSEWHERE = Warned(Code.IDENTITY_ODD, "images with this SeriesInstanceUID exist under another patient or study too")
_UNNAMED = Warned(Code.IDENTITY_ODD, "some images of the series carry no PatientID")


def split_owners(images: Sequence[Image]) -> list[Owned]:
    """Images of one SeriesInstanceUID by patient and study.

    Each owner of a whole scan keeps it, with a warning. Owners that only together have the whole make one series, refused.
    """
    owners: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        owners[(image.header.patient_id, image.header.study_uid)].append(image)
    unnamed = _adopt(owners)
    if len(owners) == 1:
        return [(list(images), None, [_UNNAMED] if unnamed else [])]
    parts = list(owners.values())
    if len(parts) > MOST_OWNERS:
        return [(list(images), _HALF_CORRECTED, [])]
    whole = [not any(_lacks(part, other) for other in parts if other is not part) for part in parts]
    if not any(whole):
        return [(list(images), _HALF_CORRECTED, [])]
    return [(part, None if complete else _HALF_CORRECTED, [_ELSEWHERE]) for part, complete in zip(parts, whole, strict=True)]


def _adopt(owners: dict[tuple[str, str], list[Image]]) -> bool:
    """Give images without a PatientID to the only patient of their study; an empty value contradicts nothing."""
    adopted = False
    for patient, study in [key for key in owners if not key[0]]:
        named = [key for key in owners if key[0] and key[1] == study]
        if len(named) == 1:
            owners[named[0]].extend(owners.pop((patient, study)))
            adopted = True
    return adopted


def _lacks(part: Sequence[Image], other: Sequence[Image]) -> bool:
    """Whether another owner holds slices of this owner's scan.

    So it is where the other has all of these places and more, and where both have some of their own and make one evenly spaced
    stack together, or this one is none without the other.
    """
    normal, theirs = _normal(part), _normal(other)
    if part[0].header.rows != other[0].header.rows or abs(float(normal @ theirs)) < SAME_DIRECTION:
        return False
    here, there = _places(part, normal), _places(other, normal)
    if there <= here:
        return False
    if here < there:
        return True
    together = span_of([*part, *other], normal)
    if together is not None and together.positions > len(here):
        return True
    return span_of(part, normal) is None and bool(here & there)


def _normal(images: Sequence[Image]) -> NDArray[np.float64]:
    cosines = images[0].frames[0].plane.orientation if images[0].frames else None
    if cosines is None or len(cosines) != 6 or not np.isfinite(cosines).all():
        return np.array([0.0, 0.0, 1.0])
    return np.asarray(np.cross(cosines[:3], cosines[3:]), dtype=np.float64)


def _places(images: Sequence[Image], normal: NDArray[np.float64]) -> set[int]:
    """Positions along the normal, in steps of SAME_PLACE_MM."""
    positions = (frame.plane.position_mm for image in images for frame in image.frames)
    known = [position for position in positions if position is not None and len(position) == 3]
    finite = [place for position in known if np.isfinite(place := float(np.asarray(position) @ normal))]
    return {round(place / SAME_PLACE_MM) for place in finite if abs(place) < LARGEST_PLACE_MM}


def contradictions(headers: Sequence[SliceHeader]) -> tuple[Rejected | None, list[Warned]]:
    """What headers of one patient and study still contradict each other in: frame of reference, name, date of birth."""
    warnings = []
    frames = {header.frame_of_reference for header in headers} - {""}
    rejected = None
    if len(frames) > 1:
        if len(frames) == sum(1 for header in headers if header.frame_of_reference):
            # Some who remove identities give every image a frame of its own; the positions still fit.
            warnings.append(Warned(Code.IDENTITY_ODD, "every image names a frame of reference of its own"))
        else:
            rejected = Rejected(
                Code.MIXED_SERIES, f"the series has {len(frames)} frames of reference: its positions may not belong together"
            )
    if len({header.patient_name for header in headers} - {""}) > 1 or len({header.birth_date for header in headers} - {""}) > 1:
        warnings.append(Warned(Code.IDENTITY_ODD, "names or dates of birth differ within the series"))
    return rejected, warnings
