"""Images of another kind in a series: a page with the dose, a picture in colours, a reformat or a scout in another plane.

They are left out and named, as long as they are few beside the slices. A slice whose position was lost is no page: without it
an organ would be cut, so it stays, and the series is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agseg.io.dicom.image import Image, span_of
from agseg.io.dicom.slice_header import SliceHeader

LARGEST_SHARE = 0.2
"""Images in another plane are pages while they are at most this share of the slices, or fewer than three."""

OTHER_PLANE_COSINE = 0.9
"""Normals further apart than this are another plane; a gantry that was tilted in between stays nearer."""

_AXIAL = np.array([0.0, 0.0, 1.0])


def is_picture(header: SliceHeader) -> bool:
    """Whether the pixels are colours."""
    return header.samples > 1 or header.photometric not in ("", "MONOCHROME1", "MONOCHROME2")


def is_page(header: SliceHeader) -> bool:
    """Whether the image lies nowhere in space and does not look as if it had been meant to."""
    if header.is_enhanced or header.position_mm is not None or header.orientation is not None:
        return False
    secondary = len(header.image_type) > 1 and header.image_type[1] == "SECONDARY"
    no_scale = header.slope is None and header.intercept is None
    return secondary or no_scale or is_picture(header) or header.bits_allocated == 8


def set_pages_aside(images: Sequence[Image]) -> tuple[list[Image], dict[str, list[Image]]]:
    """The slices, and what was set aside by what it is; all are slices where nothing is left otherwise."""
    aside: dict[str, list[Image]] = defaultdict(list)
    slices: list[Image] = []
    for image in images:
        if is_page(image.header):
            aside["a page that lies nowhere in space"].append(image)
        else:
            slices.append(image)
    pictures = [image for image in slices if is_picture(image.header)]
    if pictures and _are_few(len(pictures), len(slices) - len(pictures)):
        aside["a picture in colours"].extend(pictures)
        slices = [image for image in slices if not is_picture(image.header)]
    planes = _by_plane(slices)
    if len(planes) > 1:
        main = max(planes, key=len)
        others = [image for group in planes if group is not main for image in group]
        # Where the slices have a gap without them, they may be slices with a damaged header.
        if _are_few(len(others), len(main)) and span_of(main, _AXIAL) is not None:
            aside["an image in another plane"].extend(others)
            slices = main
    if not slices:
        return list(images), {}
    return slices, dict(aside)


def _are_few(others: int, slices: int) -> bool:
    return slices >= 3 and (others < 3 or others <= LARGEST_SHARE * slices)


def _by_plane(images: Sequence[Image]) -> list[list[Image]]:
    """Groups of images whose normals are about the same; what has none is in the first group."""
    groups: list[tuple[NDArray[np.float64] | None, list[Image]]] = []
    for image in images:
        cosines = image.frames[0].plane.orientation if image.frames else None
        normal = None
        if cosines is not None and len(cosines) == 6 and np.isfinite(cosines).all():
            normal = np.cross(cosines[:3], cosines[3:])
        for known, group in groups:
            if known is None or normal is None or abs(float(known @ normal)) > OTHER_PLANE_COSINE:
                group.append(image)
                break
        else:
            groups.append((normal, [image]))
    return [group for _, group in groups]
