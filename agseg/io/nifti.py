"""NIfTI-1 and NIfTI-2, plain, gzipped or as a ``.hdr``/``.img`` pair: read strictly, written byte for byte the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from agseg.errors import Code, InputError, OutputError
from agseg.grid import Grid
from agseg.io.atomic import replacing
from agseg.io.nifti_header import SFORM_QFORM_TOLERANCE_MM, NiftiHeader, parse_header
from agseg.io.voxels import as_hounsfield, as_labels, check_looks_like_hu
from agseg.study import Study
from agseg.volume import Quantity, Volume, Warned

__all__ = ["DAMAGE", "GZIP_MAGIC", "opened", "read_labels", "read_nifti", "read_nifti_array", "write_mask", "write_scalar"]

GZIP_MAGIC = b"\x1f\x8b"

MOST_HEADER_BYTES = 540

LARGEST_DEFLATE_RATIO = 1100
"""Deflate cannot pack better than 1032 to 1: a header that promises more bytes than that lies."""

LONGEST_TRAILER_BYTES = 2 * 1024**3
"""How much behind the voxels is unpacked (and thrown away) to reach the checksum."""

CHUNK_BYTES = 4 * 1024**2

MASK_COMPRESSION = 2
"""isal level 2: masks shrink well at any level, and this one is fast."""

GZIP_WINDOW_BITS = 31
"""zlib's way of asking for a gzip stream."""

DAMAGE: Any = (OSError, EOFError, zlib.error, IsalError, ValueError)
"""What reading a damaged gzip stream raises: the checksum as OSError, the stream as isal's own error."""

MODALITY_NOTE = "the format carries no modality; CT is assumed because the values look like HU"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked content; gzip is known by its first bytes, not by the suffix."""
    unpacker: Any = igzip.GzipFile
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if packed:
            with unpacker(fileobj=raw, mode="rb") as stream:
                yield stream
        else:
            yield raw


def read_nifti(study: Study) -> Volume:
    """Read a NIfTI study as CT.

    Returns
    -------
    Volume
        Voxels (i, j, k) as stored, Fortran-ordered, HU; int16 if all values are whole, else float32.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    header, stored = read_nifti_array(study.files[0], image=study.files[1] if len(study.files) > 1 else None)
    voxels, warnings = as_hounsfield(stored, header.scale)
    check_looks_like_hu(voxels)
    assumed = Warned(Code.MODALITY_ASSUMED, MODALITY_NOTE)
    return Volume(voxels, header.grid, Quantity.HU, "CT", (*study.warnings, assumed, *warnings))


def read_nifti_array(path: Path, *, image: Path | None = None, sheared: bool = False) -> tuple[NiftiHeader, NDArray[Any]]:
    """Header and stored voxels (i, j, k), Fortran-ordered, in the file's own dtype and without scaling.

    Parameters
    ----------
    image
        The ``.img`` file of a pair; looked for beside the header if not given.
    sheared
        Accept voxel axes that are not perpendicular.
    """
    header = read_nifti_header(path, sheared=sheared)
    if header.is_pair:
        image = image or pair_image(path)
        if image is None:
            raise InputError("a header without its .img file", code=Code.NO_PIXELS, path=path)
    source = image if header.is_pair and image is not None else path
    packed = _is_gzip(source)
    size = source.stat().st_size
    needed = header.offset + header.voxel_bytes
    if packed and needed > size * LARGEST_DEFLATE_RATIO:
        raise InputError("the header promises more voxels than the file can hold", code=Code.HEADER_LIES, path=source)
    if not packed and needed > size:
        raise InputError("the file is shorter than its voxels", code=Code.TRUNCATED, path=source, value=size, expected=needed)
    memory = np.empty(header.voxel_bytes, dtype=np.uint8)
    with _damage_as_input_error(source), opened(source) as stream:
        _skip(stream, header.offset)
        _read_exactly(stream, memory.data)
        if packed:
            read_to_checksum(stream)
    stored = memory.view(header.dtype).reshape(header.grid.shape, order="F")
    return header, stored


def read_labels(path: Path) -> tuple[NiftiHeader, NDArray[np.uint8]]:
    """Header and label values of a mask or label map: uint8 (i, j, k), Fortran-ordered, the header's scale applied.

    Its grid may be sheared, as that of a scan with a tilted gantry is.

    Raises
    ------
    InputError
        As :func:`read_nifti_array`; ``E_DTYPE`` if a value is no whole number from 0 to 255.
    """
    header, stored = read_nifti_array(path, sheared=True)
    try:
        return header, as_labels(stored, header.scale)
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None


def read_nifti_header(path: Path, *, sheared: bool = False) -> NiftiHeader:
    """The checked header of a file, plain or gzipped; ``sheared`` as in :func:`parse_header`."""
    with _damage_as_input_error(path), opened(path) as stream:
        head = stream.read(MOST_HEADER_BYTES)
    if not head:
        raise InputError("the file is empty", code=Code.TRUNCATED, path=path)
    return parse_header(head, sheared=sheared)


def pair_image(header: Path) -> Path | None:
    """The ``.img`` file that belongs to a ``.hdr`` file, if it is there and is a regular file."""
    for suffix in (".img", ".img.gz", ".IMG"):
        image = header.with_name(_stem(header) + suffix)
        if image.is_file() and not image.is_symlink():
            return image
    return None


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0]


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(2) == GZIP_MAGIC


@contextmanager
def _damage_as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=error.expected) from None
    except EOFError:
        raise InputError("the file ends before its voxels do", code=Code.TRUNCATED, path=path) from None
    except PermissionError:
        raise InputError("no permission to read the file", code=Code.PERMISSION, path=path) from None
    except DAMAGE as error:
        raise InputError(f"the gzip stream is damaged ({type(error).__name__})", code=Code.DECODE, path=path) from None


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        got = len(stream.read(min(count, CHUNK_BYTES)))
        if not got:
            raise EOFError
        count -= got


def _read_exactly(stream: BinaryIO, target: memoryview) -> None:
    at = 0
    while at < len(target):
        got = stream.readinto(target[at : at + CHUNK_BYTES])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got


def read_to_checksum(stream: BinaryIO) -> None:
    """The checksum stands at the end of the stream: what lies before it is unpacked and dropped."""
    dropped = 0
    while got := len(stream.read(CHUNK_BYTES)):
        dropped += got
        if dropped > LONGEST_TRAILER_BYTES:
            raise InputError("the file holds far more than its header says", code=Code.HEADER_LIES)


# -- writing --------------------------------------------------------------------------------------------------------------


def write_mask(path: Path, labels: NDArray[np.uint8], grid: Grid) -> None:
    """Write a mask as uint8 (i, j, k) on ``grid``; ``.nii.gz`` is gzipped. The same mask gives the same bytes.

    Raises
    ------
    OutputError
        If it cannot be written or does not read back as it was.
    """
    if labels.dtype != np.uint8:
        raise OutputError("a mask is written as uint8", code=Code.DTYPE, path=path, value=labels.dtype)
    _write(path, labels, grid)


def write_scalar(path: Path, values: NDArray[np.float32], grid: Grid) -> None:
    """Write a scalar map (a gate's coefficients, a probability) as float32 (i, j, k) on ``grid``; see :func:`write_mask`."""
    _write(path, values.astype(np.float32, copy=False), grid)


def _write(path: Path, values: NDArray[Any], grid: Grid) -> None:
    if values.shape != grid.shape:
        raise OutputError(
            "voxels and grid differ in shape", code=Code.OUTPUT, path=path, value=values.shape, expected=grid.shape
        )
    head = _header_bytes(values.dtype, grid)
    body = np.ascontiguousarray(values.transpose(2, 1, 0)).reshape(-1).view(np.uint8)

    def check(written: Path) -> None:
        header, stored = read_nifti_array_unchecked(written)
        if header != head or not np.array_equal(stored, body):
            raise OutputError("the file did not read back as it was written", path=path)

    with replacing(path, check=check) as temporary, temporary.open("wb") as raw:
        if path.name.endswith(".gz"):
            # No time and no name in the gzip header: the same mask gives the same bytes.
            packer = isal_zlib.compressobj(MASK_COMPRESSION, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
            raw.write(packer.compress(head))
            for start in range(0, body.size, CHUNK_BYTES):
                raw.write(packer.compress(body[start : start + CHUNK_BYTES]))
            raw.write(packer.flush())
        else:
            raw.write(head)
            raw.write(body.data)


def read_nifti_array_unchecked(path: Path) -> tuple[bytes, NDArray[np.uint8]]:
    """Header bytes and voxel bytes of a file that agseg has just written."""
    with _damage_as_input_error(path), opened(path) as stream:
        content = stream.read()
    return content[:352], np.frombuffer(content[352:], dtype=np.uint8)


def _header_bytes(dtype: np.dtype[Any], grid: Grid) -> bytes:
    from nibabel.nifti1 import Nifti1Header

    make: Any = Nifti1Header
    header = make()
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=1)
    with_qform = header.copy()
    with_qform.set_qform(grid.affine, code=1)
    # ITK reads no file without a qform whose sform is sheared, however little.
    if Grid(grid.shape, with_qform.get_qform()).matches(grid, SFORM_QFORM_TOLERANCE_MM / 2):
        header = with_qform
    else:
        # A quaternion cannot express shear, and a little of it adds up over many slices: readers must take the sform.
        header["pixdim"][1:4] = grid.spacing_mm
        header["qform_code"] = 0
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 352
    header["magic"] = b"n+1\0"
    head: bytes = header.binaryblock
    return head + b"\0\0\0\0"
