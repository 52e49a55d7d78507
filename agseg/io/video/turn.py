"""Which way up a frame is shown: quarter turns and mirrors that a video's display matrix asks for.

Phones and capture boxes record lying down and leave the turning to the player. Networks learned from upright pictures, so the
frames are turned here. Source: ISO/IEC 14496-12, section 6.2.2 (matrix {a, b, u, c, d, v, x, y, w}, 16.16 fixed point).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX_BYTES = 36
_ALMOST_ZERO = 0.01


@dataclass(frozen=True)
class Turn:
    """Columns become rows (``transposed``), then the picture is mirrored left to right and top to bottom as said."""

    transposed: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Turn | None:
        """The turn of a display matrix (36 bytes, native order); None where it is not made of quarter turns and mirrors.

        A point (x, y) of the stored picture is shown at (a x + c y, b x + d y).
        """
        if len(matrix) != _MATRIX_BYTES:
            return None
        a, b, _, c, d = (value / 65536 for value in struct.unpack_from("=5i", matrix))
        if max(abs(b), abs(c)) < _ALMOST_ZERO < min(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if max(abs(a), abs(d)) < _ALMOST_ZERO < min(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        return None

    @classmethod
    def of_frame(cls, picture: Any) -> Turn | None:
        """The turn that a decoded PyAV frame asks for; None as above."""
        for side in picture.side_data:
            if "DISPLAYMATRIX" in str(side.type):
                return cls.of_matrix(bytes(side))
        return UPRIGHT

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of a stored picture of this width and height."""
        return (height, width) if self.transposed else (width, height)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as it is shown; uint8 (row, column, 3) in and out."""
        if self == UPRIGHT:
            return pixels
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        rows, columns = (slice(None, None, -1 if mirror else 1) for mirror in (self.mirror_rows, self.mirror_columns))
        return np.ascontiguousarray(pixels[rows, columns])


UPRIGHT = Turn()
