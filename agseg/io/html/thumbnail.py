"""A study's pictures, small enough to be inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agseg.io.mosaic import MOSAIC_PNG
from agseg.io.preview import PREVIEW_PNG

PICTURES: Mapping[str, str] = {
    PREVIEW_PNG: "Axial, coronal and sagittal plane",
    MOSAIC_PNG: "Axial slices through each organ",
}
"""Pictures of a study folder, by name, with what each shows."""

WIDTH_PX, PLANE_WIDTH_PX = 840, 320
"""Width of a picture in the page, and of a clip's best frame: a clip has up to one for each plane."""

_JPEG_QUALITY = 72
_LARGEST_BYTES = 8 << 20


@dataclass(frozen=True)
class Picture:
    """A JPEG inside the page (base64), its size there (px), and the file that it was made from."""

    alt: str
    href: str
    width: int
    height: int
    data: str


def thumbnail(path: Path, *, href: str, alt: str, width: int | None = None) -> Picture | None:
    """The picture, or None if there is none of ours that can be read."""
    import PIL.Image

    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST_BYTES:
            return None
        with PIL.Image.open(path, formats=("PNG",)) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError):
        return None
    width = width or WIDTH_PX
    small.thumbnail((width, 4 * width))
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Picture(alt, href, small.width, small.height, base64.b64encode(stream.getvalue()).decode())
