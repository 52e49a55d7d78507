"""The fields of a NIfTI header, read from its bytes and laid out into them; whether they make sense is not asked here.

nibabel does the same and is what the tests hold this against, byte for byte. It takes a fifth of a second to import, in every
process that reads or writes one header.
Source: NIfTI-1 and NIfTI-2 header definitions (nifti1.h, nifti2.h).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = {1: 348, 2: 540}

_VERSION_1 = np.dtype(
    [
        ("sizeof_hdr", "<i4"), ("data_type", "S10"), ("db_name", "S18"), ("extents", "<i4"), ("session_error", "<i2"),
        ("regular", "S1"), ("dim_info", "u1"), ("dim", "<i2", (8,)), ("intent_p", "<f4", (3,)), ("intent_code", "<i2"),
        ("datatype", "<i2"), ("bitpix", "<i2"), ("slice_start", "<i2"), ("pixdim", "<f4", (8,)), ("vox_offset", "<f4"),
        ("scl_slope", "<f4"), ("scl_inter", "<f4"), ("slice_end", "<i2"), ("slice_code", "u1"), ("xyzt_units", "u1"),
        ("cal_max", "<f4"), ("cal_min", "<f4"), ("slice_duration", "<f4"), ("toffset", "<f4"), ("glmax", "<i4"),
        ("glmin", "<i4"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "<i2"), ("sform_code", "<i2"),
        ("quatern", "<f4", (3,)), ("qoffset", "<f4", (3,)), ("srow", "<f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
    ]
)  # fmt: skip

_VERSION_2 = np.dtype(
    [
        ("sizeof_hdr", "<i4"), ("magic", "S8"), ("datatype", "<i2"), ("bitpix", "<i2"), ("dim", "<i8", (8,)),
        ("intent_p", "<f8", (3,)), ("pixdim", "<f8", (8,)), ("vox_offset", "<i8"), ("scl_slope", "<f8"), ("scl_inter", "<f8"),
        ("cal_max", "<f8"), ("cal_min", "<f8"), ("slice_duration", "<f8"), ("toffset", "<f8"), ("slice_start", "<i8"),
        ("slice_end", "<i8"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "<i4"), ("sform_code", "<i4"),
        ("quatern", "<f8", (3,)), ("qoffset", "<f8", (3,)), ("srow", "<f8", (3, 4)), ("slice_code", "<i4"),
        ("xyzt_units", "<i4"), ("intent_code", "<i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "S15"),
    ]
)  # fmt: skip

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""NIfTI's codes of the types that are real numbers, and numpy's."""

_MILLIMETRES = 2
_LEAST_QUATERNION_SQUARE = float(np.finfo(np.float64).eps)
_CODE_SCANNER = 1


class NiftiFields:
    """A header's fields by name, in the byte order that its ``sizeof_hdr`` has.

    Parameters
    ----------
    version
        1 or 2.
    head
        The header's bytes, at least :data:`HEADER_BYTES` of them; None for an empty NIfTI-1 header, little-endian.
    """

    def __init__(self, version: int = 1, head: bytes | None = None) -> None:
        layout, size = (_VERSION_1, _VERSION_2)[version - 1], HEADER_BYTES[version]
        if head is not None and int.from_bytes(head[:4], "little") != size:
            layout = layout.newbyteorder(">")
        self._order = "<" if layout["sizeof_hdr"].newbyteorder("=") == layout["sizeof_hdr"] else ">"
        self._fields = np.zeros((), dtype=layout)
        if head is not None:
            self._fields = np.frombuffer(head[:size], dtype=layout).reshape(()).copy()

    def __getitem__(self, name: str) -> Any:
        """A field: a number, bytes, or an array that may be written to."""
        return self._fields[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._fields[name] = value

    def copy(self) -> NiftiFields:
        """Another header with the same fields."""
        other = NiftiFields()
        other._order, other._fields = self._order, self._fields.copy()
        return other

    def to_bytes(self) -> bytes:
        """The header as it is in a file."""
        return bytes(self._fields.tobytes())

    def get_data_dtype(self) -> np.dtype[Any]:
        """The voxels' type; KeyError if it is no real number."""
        return np.dtype(self._order + _TYPES[int(self["datatype"])])

    def set_data_dtype(self, dtype: np.dtype[Any]) -> None:
        """The same, to be written."""
        codes = {name: code for code, name in _TYPES.items()}
        self["datatype"] = codes[f"{dtype.kind}{dtype.itemsize}"]
        self["bitpix"] = dtype.itemsize * 8

    def get_sform(self) -> NDArray[np.float64]:
        """(4, 4), index to RAS+ mm."""
        affine = np.eye(4)
        affine[:3] = self["srow"]
        return affine

    def get_qform(self) -> NDArray[np.float64]:
        """(4, 4), index to RAS+ mm.

        Raises
        ------
        ValueError
            If the quaternion is longer than 1, a voxel size is negative, or qfac is neither 1 nor -1.
        """
        sizes = np.array(self["pixdim"][1:4], dtype=np.float64)
        if (sizes < 0).any():
            raise ValueError("a voxel size is negative")
        qfac = float(self["pixdim"][0])
        if qfac not in (-1.0, 1.0):
            raise ValueError("qfac is neither 1 nor -1")
        sizes[2] *= qfac
        affine = np.eye(4)
        affine[:3, :3] = _rotation(np.asarray(self["quatern"])) * sizes
        affine[:3, 3] = self["qoffset"]
        return affine

    def set_millimetres(self) -> None:
        """Lengths are mm; there is no time."""
        self["xyzt_units"] = _MILLIMETRES

    def set_sform(self, affine: NDArray[np.float64]) -> None:
        """The affine as it is, of the scanner's space."""
        self["sform_code"] = _CODE_SCANNER
        self["srow"] = affine[:3]

    def set_qform(self, affine: NDArray[np.float64]) -> None:
        """The closest affine without shear, of the scanner's space, and with it the voxel sizes."""
        self["qform_code"] = _CODE_SCANNER
        sizes = np.sqrt((affine[:3, :3] * affine[:3, :3]).sum(axis=0))
        turn = affine[:3, :3] / sizes
        qfac = 1 if np.linalg.det(turn) > 0 else -1
        turn[:, 2] *= qfac
        left, _, right = np.linalg.svd(turn)
        self["pixdim"][:4] = (qfac, *sizes)
        self["quatern"] = _quaternion(np.dot(left, right))[1:]
        self["qoffset"] = affine[:3, 3]


def _rotation(bcd: NDArray[Any]) -> NDArray[np.float64]:
    """The rotation (3, 3) of the quaternion whose last three numbers are given; their precision decides how much is 0."""
    tolerance = 3 * float(np.finfo(bcd.dtype).eps)
    b, c, d = (float(number) for number in bcd)
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < -tolerance or not np.isfinite(rest):
        raise ValueError("the quaternion is longer than 1")
    a = 0.0 if abs(rest) < tolerance else rest**0.5
    square = a * a + b * b + c * c + d * d
    if square < _LEAST_QUATERNION_SQUARE:
        return np.eye(3)
    s = 2.0 / square
    return np.array(
        [
            [1.0 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
            [s * (b * c + a * d), 1.0 - s * (b * b + d * d), s * (c * d - a * b)],
            [s * (b * d - a * c), s * (c * d + a * b), 1.0 - s * (b * b + c * c)],
        ]
    )


def _quaternion(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """(a, b, c, d) of a rotation (3, 3), a not negative: the eigenvector of Bar-Itzhack's matrix to its largest eigenvalue.

    Source: I. Y. Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, J. Guid. Control Dyn. 2000.
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = turn
    lower = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [yz - zy, zx - xz, xy - yx, xx + yy + zz],
        ]
    )
    values, vectors = np.linalg.eigh(lower / 3.0)
    found = vectors[[3, 0, 1, 2], np.argmax(values)]
    return np.asarray(-found if found[0] < 0 else found)
