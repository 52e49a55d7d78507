"""Frames from image files: a folder of stills in natural order, or one image. Stills have no times and no neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.io.opening import open_regular
from agseg.io.video.frames import Box, Frame, Wanted, check_size
from agseg.volume import Warned

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""Pillow's names of the formats that are tried; no other decoder is loaded."""

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def natural_order(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts ``frame2`` before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


class Stills:
    """Image files as frames, one per file, in the order given.

    A file that cannot be read costs its own frame and a warning, unless none can be read.

    Raises
    ------
    InputError
        ``E_DECODE`` if not one of them can be read.
    """

    moving = False
    frames_per_second: float | None = None
    region: Box | None = None

    def __init__(self, paths: tuple[Path, ...]) -> None:
        from PIL import Image, UnidentifiedImageError  # a run without a clip needs no Pillow

        self._paths = paths
        self._failed: dict[int, str] = {}
        self.frame_count: int | None = len(paths)
        for path in paths:
            try:
                with open_regular(path) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
                    self.size: tuple[int, int] = image.size
                    return
            except (UnidentifiedImageError, OSError, ValueError, InputError, Image.DecompressionBombError):
                continue
        raise InputError("the image cannot be read", code=Code.DECODE, path=paths[0].parent if len(paths) > 1 else paths[0])

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """One, if images could not be read."""
        if not self._failed:
            return ()
        codes = ", ".join(sorted(set(self._failed.values())))
        return (Warned(Code.FRAMES_LOST, f"{len(self._failed)} of {len(self._paths)} images could not be read ({codes})"),)

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted images in order.

        Raises
        ------
        InputError
            If the only image, or every image, is unfit.
        """
        given, last = 0, None
        for index, path in enumerate(self._paths):
            if not wanted(index):
                continue
            try:
                pixels = _read_rgb(path)
            except InputError as error:
                self._failed[index] = str(error.code)
                last = error
                continue
            given += 1
            yield Frame(index, None, pixels)
        if given == 0 and last is not None:
            raise last


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    """uint8 (row, column, 3)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with open_regular(path) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            check_size(*image.size)
            if image.mode not in _EIGHT_BIT_MODES:
                raise InputError("the image is not an 8-bit image", code=Code.DTYPE, path=path, value=image.mode)
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError("the image cannot be decoded: cut off or damaged", code=Code.DECODE, path=path) from None
