"""Frames of an ultrasound DICOM object, single or multi-frame: RGB, YBR, palette or grey, in any transfer syntax that pydicom
decodes, or a video stream (MPEG-2, H.264, HEVC), which PyAV does.

Only what is needed to decode and to time the frames is read; nothing that names a person leaves this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.extras import install_hint
from agseg.io.dicom.dataset import open_dataset
from agseg.io.dicom.header import read_header
from agseg.io.dicom.pixels import named_syntax
from agseg.io.dicom.slice_header import PixelSpan
from agseg.io.opening import open_regular
from agseg.io.video.fragments import FragmentStream, container_of, is_video_syntax
from agseg.io.video.frames import Box, Frame, Wanted, check_size
from agseg.io.video.subsampled import check_length, is_subsampled, subsampled_frame
from agseg.io.video.video_stream import VideoStream
from agseg.volume import Warned

MAX_FRAMES = 1_000_000
"""More frames than this is a header that lies (11 hours at 25 per second)."""

_HEAD_BYTES = 512
"""Enough of a stream to tell its container."""

_MODALITIES = ("US", "IVUS")
_TWO_D = 1  # PS3.3 C.8.5.5.1.1, Region Spatial Format: 2D (tissue or flow)


class Cine:
    """An ultrasound DICOM file.

    Raises
    ------
    InputError
        ``E_MODALITY``, ``E_NO_PIXELS``, ``E_TRANSFER_SYNTAX``, ``E_HEADER_INVALID``, ``E_VIDEO`` or ``E_NOT_DICOM``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slices = read_header(path)
        # What is deflated has no place in the file: it is read whole, its size checked before.
        self._is_whole = self._slices.pixels is None
        self._header = header = open_dataset(path, with_pixels=self._is_whole)
        if "TransferSyntaxUID" not in header.file_meta:
            raise InputError("not a readable DICOM file", code=Code.NOT_DICOM, path=path)
        modality = str(header.get("Modality", ""))
        if modality not in _MODALITIES:
            raise InputError("not an ultrasound object", code=Code.MODALITY, path=path, expected="modality US")
        self.size: tuple[int, int] = (int(header.get("Columns") or 0), int(header.get("Rows") or 0))
        if (self._is_whole and "PixelData" not in header) or 0 in self.size:
            raise InputError("the object holds no picture", code=Code.NO_PIXELS, path=path)
        check_size(*self.size)
        self.frame_count: int | None = _frame_count(header, path)
        self._times_s = _times_s(header, self.frame_count or 1)
        self._stated: tuple[Warned, ...] = ()
        check_length(self._slices)
        self._video = _video(path, header, self._slices.pixels)
        if self._video is not None:
            self.size = self._video.size
        elif self._times_s is None and self.moving:
            self._stated = (Warned(Code.FRAME_TIMES, "the object states no frame time; times are left empty"),)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What the header lacks, and what a video stream turned out to be; complete once the frames have been read."""
        return (*self._stated, *(() if self._video is None else self._video.warnings))

    @property
    def moving(self) -> bool:
        """Whether there is more than one frame."""
        return (self.frame_count or 1) > 1

    @property
    def frames_per_second(self) -> float | None:
        """Mean rate from the stated frame times, or from the video stream."""
        if self._times_s is None and self._video is not None:
            return self._video.frames_per_second
        if self._times_s is None or len(self._times_s) < 2 or self._times_s[-1] <= 0:
            return None
        return float((len(self._times_s) - 1) / self._times_s[-1])

    @property
    def region(self) -> Box | None:
        """The largest two-dimensional region of the Sequence of Ultrasound Regions (PS3.3 C.8.5.5)."""
        boxes = [
            box
            for item in self._header.get("SequenceOfUltrasoundRegions") or ()
            if item.get("RegionSpatialFormat") == _TWO_D and (box := _region_box(item, self.size)) is not None
        ]
        return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)

    def frames(self, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames in order, decoded one at a time from the file.

        Raises
        ------
        InputError
            ``E_TRANSFER_SYNTAX`` where no decoder is installed, ``E_DECODE`` or ``E_TRUNCATED`` where decoding fails.
        """
        if self._video is not None:
            yield from self._of_video(self._video, wanted)
            return
        indices = [index for index in range(self.frame_count or 1) if wanted(index)]
        given = 0
        try:
            for index, pixels in zip(indices, self._decoded(indices), strict=False):
                time_s = None if self._times_s is None else float(self._times_s[index])
                yield Frame(index, time_s, pixels)
                given += 1
        except InputError:
            raise
        except (NotImplementedError, RuntimeError) as error:
            raise _decode_error(error, self._path, self._slices.transfer_syntax) from None
        except (ValueError, AttributeError, EOFError, IndexError, KeyError, TypeError, OSError):
            raise InputError("the pixels cannot be decoded: cut off or damaged", code=Code.DECODE, path=self._path) from None
        if given < len(indices):
            raise _too_few(given, len(indices), self._path)

    def _decoded(self, indices: list[int]) -> Iterator[NDArray[np.uint8]]:
        """uint8 (row, column, 3) of these frames."""
        if is_subsampled(self._slices):
            for index in indices:
                yield subsampled_frame(self._slices, index)
            return
        from pydicom.pixels.utils import iter_pixels

        with nullcontext(self._header) if self._is_whole else open_regular(self._path) as source:
            for raw in iter_pixels(source, indices=indices):
                yield self._to_rgb(np.asarray(raw))

    def _of_video(self, video: VideoStream, wanted: Wanted) -> Iterator[Frame]:
        """The wanted frames of a video stream, at the times that the object states, or else at the stream's own."""
        last, stated = -1, 0 if self._times_s is None else len(self._times_s)
        for frame in video.frames(wanted):
            last = frame.index
            if self._times_s is None:
                yield frame
            elif frame.index < stated:
                yield Frame(frame.index, float(self._times_s[frame.index]), frame.pixels)
        missing = [index for index in range(last + 1, self.frame_count or 1) if wanted(index)]
        if missing:
            raise _too_few(last + 1, self.frame_count or 1, self._path)

    def _to_rgb(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8 (row, column, 3) from one decoded frame; pydicom has already turned YBR into RGB."""
        photometric = str(self._header.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            from pydicom.pixels.processing import apply_color_lut

            raw = np.asarray(apply_color_lut(raw, self._header))
            entries_bits = int(self._header.RedPaletteColorLookupTableDescriptor[2])
            return _to_8_bits(raw, entries_bits)[..., :3]
        pixels = _to_8_bits(raw, int(self._header.get("BitsStored", 8)))
        if photometric == "MONOCHROME1":
            pixels = 255 - pixels
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def is_other_modality(path: Path) -> bool:
    """Whether a DICOM file says that it is no ultrasound; false where it cannot be told."""
    try:
        modality = read_header(path).modality
    except InputError:  # opening the clip gives the reason
        return False
    return modality != "" and modality not in _MODALITIES


def _to_8_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The eight highest of the stored bits; ultrasound is stored for display, so no window applies."""
    if values.dtype == np.uint8 and bits <= 8:
        return values
    return np.asarray(np.clip(values.astype(np.int32) >> max(bits - 8, 0), 0, 255), dtype=np.uint8)


def _frame_count(header: Any, path: Path) -> int:
    try:
        count = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        count = -1
    if not 1 <= count <= MAX_FRAMES:
        raise InputError("the number of frames makes no sense", code=Code.HEADER_INVALID, path=path)
    return count


def _times_s(header: Any, count: int) -> NDArray[np.float64] | None:
    """Time of each frame (s) from Frame Time Vector, Frame Time or a rate (PS3.3 C.7.6.5); None if none is usable."""
    if count == 1:
        return None
    try:
        vector = header.get("FrameTimeVector")
        if vector is not None and len(vector) == count:
            # Increments in ms; the first is the time before the first frame and usually 0.
            return np.asarray(np.cumsum(np.asarray(vector, dtype=np.float64)) / 1000.0, dtype=np.float64)
        step_ms = float(header.get("FrameTime") or 0.0)
        if step_ms <= 0:
            rate = float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 0.0)
            step_ms = 1000.0 / rate if rate > 0 else 0.0
    except (TypeError, ValueError):
        return None
    return np.arange(count, dtype=np.float64) * np.float64(step_ms / 1000.0) if step_ms > 0 else None


def _region_box(item: Any, size: tuple[int, int]) -> Box | None:
    try:
        x0, y0 = int(item.RegionLocationMinX0), int(item.RegionLocationMinY0)
        x1, y1 = int(item.RegionLocationMaxX1) + 1, int(item.RegionLocationMaxY1) + 1
    except (AttributeError, TypeError, ValueError):
        return None
    return (x0, y0, x1, y1) if 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1] else None


def _video(path: Path, header: Any, span: PixelSpan | None) -> VideoStream | None:
    """The video stream that the object holds, if its transfer syntax says so."""
    syntax = str(header.file_meta.TransferSyntaxUID)
    if not is_video_syntax(syntax):
        return None
    if span is None or not span.is_encapsulated:
        raise InputError("a video's pixels must be encapsulated", code=Code.HEADER_INVALID, path=path)
    stream = FragmentStream(path, span.offset)
    return VideoStream(path, container_of(stream.read(_HEAD_BYTES), syntax), stream)


def _too_few(given: int, stated: int, path: Path) -> InputError:
    return InputError(
        "the object holds fewer frames than it states", code=Code.TRUNCATED, path=path, value=given, expected=stated
    )


def _decode_error(error: Exception, path: Path, syntax: str) -> InputError:
    """A missing decoder and broken data both arrive as RuntimeError or NotImplementedError from pydicom."""
    if isinstance(error, NotImplementedError):
        return InputError(f"the transfer syntax is not decoded: {named_syntax(syntax)}", code=Code.TRANSFER_SYNTAX, path=path)
    if "plugins are missing" in str(error) or "missing dependencies" in str(error):
        return InputError(
            f"no decoder is installed for {named_syntax(syntax)}: {install_hint('codecs')}",
            code=Code.TRANSFER_SYNTAX,
            path=path,
        )
    return InputError("the pixels cannot be decoded: cut off or damaged", code=Code.DECODE, path=path)
