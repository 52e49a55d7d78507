"""Ultrasound-like frames and files for tests: a fan of speckle, letters beside it, videos and cine DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agseg.io.video.clips import CLIP, MODALITY
from agseg.study import Study

PATIENT = "ZEBEDEE^PHILOMENA"
"""A name that must not appear in any output."""


def clip_of(name: str, *files: Path) -> Study:
    """A clip of these files; without any, of one that is not there."""
    files = files or (Path(name),)
    return Study(name, files[0].parent, files, kind=CLIP, modality=MODALITY)


def fan_frame(
    size: tuple[int, int] = (640, 480),
    *,
    box: tuple[int, int, int, int] = (160, 60, 500, 440),
    seed: int = 0,
    text: bool = True,
) -> NDArray[np.uint8]:
    """uint8 (row, column, 3): a trapezium of speckle that fills ``box`` (x0, y0, x1, y1), and letters outside of it."""
    generator = np.random.default_rng(seed)
    width, height = size
    x0, y0, x1, y1 = box
    image = Image.new("L", size)
    inset = (x1 - x0) // 4
    ImageDraw.Draw(image).polygon([(x0 + inset, y0), (x1 - 1 - inset, y0), (x1 - 1, y1 - 1), (x0, y1 - 1)], fill=255)
    speckle = np.clip(generator.rayleigh(45, (height, width)), 0, 255)
    grey = np.where(np.asarray(image) > 0, speckle, 0).astype(np.uint8)
    drawn = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    if text:
        draw = ImageDraw.Draw(drawn)
        draw.text((8, 8), "PHILOMENA ZEBEDEE  1961-02-03", fill="white")
        draw.text((width - 90, height - 20), "MI 0.9 TIs 0.1", fill="white")
    return np.asarray(drawn)


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    metadata: dict[str, str] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Frames as a video at the given times (default 25 per second); ``options`` are the encoder's."""
    import av

    with av.open(str(path), "w", format=container) as target:
        for key, value in (metadata or {}).items():
            target.metadata[key] = value
        stream: Any = target.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        # MPEG-2 knows television's rates only.
        tick = Fraction(1, 25) if codec == "mpeg2video" else Fraction(1, 1000)
        stream.codec_context.time_base = tick
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "ultrafast"}
        stream.options = {**stream.options, **(options or {})}
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts = index * 40 if times_ms is None else times_ms[index]
            picture.time_base = Fraction(1, 1000)
            if codec == "mpeg2video":
                picture.pts, picture.time_base = index, tick
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """An mp4 with sound and no picture."""
    import av

    with av.open(str(path), "w", format="mp4") as target:
        stream: Any = target.add_stream("aac", rate=44100)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 44100
        for index in range(8):
            block.pts = index * 1024
            target.mux(stream.encode(block))
        target.mux(stream.encode(None))
    return path


def write_cine(path: Path, frames: NDArray[Any], *, photometric: str = "RGB", transfer_syntax: str = "", **tags: Any) -> Path:
    """An ultrasound DICOM object from (frame, row, column[, 3]) uint8, with the patient's name in its header."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UltrasoundMultiFrameImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID, data.Modality = PATIENT, "ID-4711-ZEB", "US"
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape[:3]
    data.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    data.PhotometricInterpretation = photometric
    if frames.ndim == 4:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = frames.tobytes() + b"\0" * (frames.size % 2)
    data["PixelData"].VR = "OB"
    for name, value in tags.items():
        setattr(data, name, value)
    if transfer_syntax:
        data.compress(pydicom.uid.UID(transfer_syntax))
    data.save_as(path, enforce_file_format=True)
    return path
