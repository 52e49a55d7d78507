"""Stored values of one DICOM frame, and how they become HU or signal.

The chain of the standard (mask to BitsStored, sign, slope and intercept of *that* slice, padding, clip) is the same for every
pixel with the same stored bits, so it is worked out once for all 2^16 of them in a table and looked up.
Source: DICOM PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.7.5.1.1.2 (Pixel Padding).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.extras import install_hint
from agseg.io.dicom.jpeg_lossless import check_all_coded
from agseg.io.dicom.jpeg_lossy import check_last_block
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.opening import open_regular
from agseg.volume import HU_MAX, HU_MIN, Quantity

NATIVE_LITTLE_ENDIAN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
"""Transfer syntaxes whose pixels can be taken from the file as they are."""

JPEG_LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})

HU_RESCALE_TYPES = frozenset({"", "HU", "US", "HU_MOD"})
"""RescaleType values that mean HU; ``US`` is 'unspecified', which older scanners write."""

GREY = frozenset({"", "MONOCHROME1", "MONOCHROME2"})
"""Photometric interpretations of values; a palette's indices are none. MONOCHROME1 says how to show them, not what they are."""

PANIC = "PanicException"

LONGEST_SIDE = 16384
"""Rows and Columns beyond this (pixels) are no slice of a scan."""

INT16 = np.iinfo(np.int16)

LARGEST_COMPRESSION = 20_000
"""A frame compressed by more than this factor is a header that lies."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """How the stored bits of one slice become HU, or the signal of an MR."""

    bits_allocated: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    padding: int | None
    padding_limit: int | None
    quantity: Quantity = Quantity.HU

    @classmethod
    def of(cls, header: SliceHeader, *, slope: float | None, intercept: float | None, rescale_type: str) -> Rescale:
        """The scale of a slice whose rescale is given apart, because an enhanced file has one per frame.

        A signal has no scale of its own: without a rescale it is the stored value.

        Raises
        ------
        InputError
            ``E_NO_RESCALE``, ``E_DTYPE``, ``E_HEADER_INVALID``.
        """
        quantity = Quantity.of(header.scan or "CT")
        if quantity is Quantity.SIGNAL:
            slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
        elif slope is None or intercept is None:
            raise InputError("no RescaleSlope or RescaleIntercept: values are not HU", code=Code.NO_RESCALE)
        elif rescale_type.upper() not in HU_RESCALE_TYPES:
            raise InputError("RescaleType says that values are not HU", code=Code.NO_RESCALE)
        if not np.isfinite([slope, intercept]).all() or slope == 0:
            raise InputError("RescaleSlope or RescaleIntercept is not a usable number", code=Code.HEADER_INVALID)
        allocated, stored = header.bits_allocated, header.bits_stored
        if header.photometric not in GREY:
            raise InputError(f"the pixels are colours, not {quantity}", code=Code.DTYPE, expected="MONOCHROME2")
        if header.samples != 1:
            raise InputError("colour pixels", code=Code.DTYPE, value=f"{header.samples} samples", expected="1 sample per pixel")
        if allocated not in (8, 16):
            raise InputError("unusual BitsAllocated", code=Code.DTYPE, value=allocated, expected="8 or 16")
        if stored is None or not 1 <= stored <= allocated:
            raise InputError("BitsStored does not fit BitsAllocated", code=Code.HEADER_INVALID, value=stored)
        if header.high_bit is not None and header.high_bit != stored - 1:
            # Source: DICOM PS3.3 C.8.2.1 (CT Image): one less than BitsStored. Only ACR-NEMA laid pixels higher in their words.
            raise InputError(
                "HighBit does not fit BitsStored", code=Code.HEADER_INVALID, value=header.high_bit, expected=stored - 1
            )
        return cls(allocated, stored, header.signed, slope, intercept, header.padding, header.padding_limit, quantity)

    @property
    def is_whole(self) -> bool:
        """True if every value is a whole number that int16 has room for, as all HU have once they are clipped."""
        if self.slope != round(self.slope) or self.intercept != round(self.intercept):
            return False
        return self.quantity is Quantity.HU or all(INT16.min <= value <= INT16.max for value in self._ends())

    def _ends(self) -> tuple[float, float]:
        """The values of the smallest and the largest stored number."""
        steps = 1 << self.bits_stored
        low = -steps // 2 if self.signed else 0
        return low * self.slope + self.intercept, (low + steps - 1) * self.slope + self.intercept


@lru_cache(maxsize=256)
def value_table(scale: Rescale, *, whole: bool) -> NDArray[np.int16] | NDArray[np.float32]:
    """HU or signal of every stored bit pattern: shape (2^BitsAllocated,), int16 if ``whole`` else float32.

    HU are clipped to their range. Padding is air in HU, and 0 in a signal.
    """
    patterns = np.arange(1 << scale.bits_allocated, dtype=np.int32)
    values = patterns & ((1 << scale.bits_stored) - 1)
    as_written = patterns
    if scale.signed:
        half = 1 << (scale.bits_stored - 1)
        values = np.where(values >= half, values - 2 * half, values)
        as_written = np.where(patterns >= 1 << (scale.bits_allocated - 1), patterns - (1 << scale.bits_allocated), patterns)
    scaled = values * scale.slope + scale.intercept
    if scale.quantity is Quantity.HU:
        scaled = np.clip(scaled, HU_MIN, HU_MAX)
    if scale.padding is not None:
        limit = scale.padding if scale.padding_limit is None else scale.padding_limit
        low, high = min(scale.padding, limit), max(scale.padding, limit)
        # Padding may lie outside BitsStored (63536 with 12 bits), so it is compared before the mask; and within BitsStored
        # other bits may be set (old overlays), so it is compared after the mask too, where it fits.
        padded = (as_written >= low) & (as_written <= high)
        if -(1 << (scale.bits_stored - 1)) <= low and high < 1 << scale.bits_stored:
            padded |= (values >= low) & (values <= high)
        scaled[padded] = HU_MIN if scale.quantity is Quantity.HU else 0
    table: NDArray[Any] = np.rint(scaled).astype(np.int16) if whole else scaled.astype(np.float32)
    table.setflags(write=False)
    return table


def check_frame_size(header: SliceHeader) -> int:
    """Bytes of one decoded frame, after the header has been held against the bytes that are present.

    Raises
    ------
    InputError
        ``E_NO_PIXELS``, ``E_TOO_LARGE``, ``E_TRUNCATED``, ``E_HEADER_LIES``.
    """
    if not header.rows or not header.columns:
        raise InputError("no Rows or Columns: there is no image matrix", code=Code.NO_PIXELS, path=header.path)
    if max(header.rows, header.columns) > LONGEST_SIDE:
        raise InputError(
            "the image matrix is too large",
            code=Code.TOO_LARGE,
            path=header.path,
            value=(header.rows, header.columns),
            expected=LONGEST_SIDE,
        )
    frame_bytes = header.rows * header.columns * header.samples * ((header.bits_allocated or 16) // 8)
    needed = frame_bytes * max(header.frames, 1)
    span = header.pixels
    if span is None:
        if header.transfer_syntax in NATIVE_LITTLE_ENDIAN and needed > header.file_bytes:
            raise InputError("the file is shorter than its pixels", code=Code.TRUNCATED, path=header.path)
        return frame_bytes
    if span.is_encapsulated:
        if header.transfer_syntax in NATIVE_LITTLE_ENDIAN:
            raise InputError("compressed pixels under an uncompressed transfer syntax", code=Code.HEADER_LIES, path=header.path)
        if needed > span.present * LARGEST_COMPRESSION:
            raise InputError("the header promises more pixels than the file can hold", code=Code.HEADER_LIES, path=header.path)
    elif span.length > span.present:
        raise InputError("the file ends inside its pixels", code=Code.TRUNCATED, path=header.path)
    elif span.length not in (needed, needed + needed % 2):
        # One byte may fill up to an even length. Where there are more, a row is longer than the header says, or a pixel is.
        code = Code.NO_PIXELS if span.length == 0 else Code.HEADER_LIES
        said = "Rows x Columns x frames does not fit the pixel bytes"
        raise InputError(said, code=code, path=header.path, value=span.length, expected=needed)
    return frame_bytes


def is_native(header: SliceHeader) -> bool:
    """Whether the stored values lie in the file as they are."""
    span = header.pixels
    return span is not None and not span.is_encapsulated and header.transfer_syntax in NATIVE_LITTLE_ENDIAN


def native_frame(header: SliceHeader, frame: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Stored bit patterns (rows, columns) straight from a file that :func:`is_native`."""
    span = header.pixels
    assert span is not None
    dtype = np.dtype("u1") if header.bits_allocated == 8 else np.dtype("<u2")
    assert header.rows is not None
    assert header.columns is not None
    count = header.rows * header.columns
    with open_regular(header.path) as stream:
        stream.seek(span.offset + frame * count * dtype.itemsize)
        stored: NDArray[Any] = np.fromfile(stream, dtype=dtype, count=count)
    if stored.size != count:
        raise InputError("the file ends inside its pixels", code=Code.TRUNCATED, path=header.path)
    return stored.reshape(header.rows, header.columns)


def named_syntax(syntax: str) -> str:
    """The standard's name of a transfer syntax; a UID that is none of the standard's is not repeated."""
    from pydicom.uid import UID

    uid = UID(syntax)
    return uid.name if uid.name != syntax and uid.is_transfer_syntax else "a transfer syntax that the standard does not name"


def check_codec(syntax: str) -> None:
    """Refuse a transfer syntax that cannot be decoded here.

    Raises
    ------
    InputError
        ``E_TRANSFER_SYNTAX``, with the extra that holds the codec where there is one.
    """
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError("the transfer syntax is not one of images", code=Code.TRANSFER_SYNTAX) from None
    if not decoder.is_available:
        raise InputError(
            f"no codec for {decoder.UID.name}: {install_hint('codecs')}",  # in the sentence: records keep no hints
            code=Code.TRANSFER_SYNTAX,
        )


def decode_frame(dataset: Any, header: SliceHeader, frame: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Stored bit patterns (rows, columns), unsigned, of one frame of a pydicom data set in any transfer syntax.

    Raises
    ------
    InputError
        ``E_DECODE`` if the codec fails or gives another matrix than the header says, ``E_NO_PIXELS`` without pixels.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputError("the file holds no pixels", code=Code.NO_PIXELS, path=header.path)
    check_codec(header.transfer_syntax)
    # A file without a preamble says nothing of its transfer syntax; the header has what it was read as.
    if not UID(header.transfer_syntax).is_encapsulated:
        _check_length(header, len(dataset.PixelData))
    try:
        pixels, _ = get_decoder(header.transfer_syntax).as_array(dataset, index=frame, raw=True)
    except BaseException as error:
        # A codec in Rust that meets what it did not expect raises its PanicException past every ``except Exception``.
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise InputError(f"the pixels cannot be decoded ({type(error).__name__})", code=Code.DECODE, path=header.path) from None
    unsigned = np.dtype("u1") if header.bits_allocated == 8 else np.dtype("u2")
    if pixels.shape != (header.rows, header.columns) or pixels.dtype.kind not in "iu":
        raise InputError("the decoded frame does not fit the header", code=Code.DECODE, path=header.path)
    if pixels.dtype.itemsize != unsigned.itemsize:
        pixels = pixels.astype(f"{pixels.dtype.kind}{unsigned.itemsize}")
    stored: NDArray[Any] = pixels.view(pixels.dtype.str.replace("i", "u")).astype(unsigned, copy=False)
    if header.transfer_syntax in JPEG_LOSSLESS:
        check_all_coded(get_frame(dataset.PixelData, frame, number_of_frames=max(header.frames, 1)), stored)
    elif header.transfer_syntax in JPEG_LOSSY:
        check_last_block(stored, header.bits_stored or 8)
    return stored


def _check_length(header: SliceHeader, length: int) -> None:
    """The same as :func:`check_frame_size` for native pixels that pydicom had to unpack (deflated, big endian)."""
    needed = check_frame_size(replace(header, pixels=None)) * max(header.frames, 1)
    if length not in (needed, needed + needed % 2):
        raise InputError(
            "Rows x Columns x frames does not fit the pixel bytes", code=Code.HEADER_LIES, value=length, expected=needed
        )
