"""A video inside a DICOM object: the same frames wherever its fragments are cut, and named where it cannot be decoded."""

import io
import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import itemize_fragment
from pydicom.uid import UID

from agseg.errors import Code, InputError
from agseg.io.video.cine import Cine
from agseg.io.video.fragments import FragmentStream
from agseg.io.video.frames import every
from tests.ultrasound.scans import write_cine, write_video

av = pytest.importorskip("av")

H264, MPEG2, HEVC = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.107"
FIRST_ITEM = b"\xfe\xff\x00\xe0"


def bars(count=9):
    frames = np.full((count, 64, 96, 3), 20, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 8 * number : 8 * number + 16] = 220
    return frames


def place(pixels):
    return float(np.average(np.arange(96), weights=pixels.mean(axis=(0, 2)).clip(60) - 60 + 1e-6))


def video(path, *, codec, container):
    options = {"bf": "0"} if container in ("h264", "hevc", "mpegvideo", "mpeg2video") else {"bf": "2"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none"}
    return write_video(path, list(bars()), codec=codec, container=container, options=options).read_bytes()


def write_video_cine(path, stream, syntax, *, pieces=1, **tags):
    cine = write_cine(path, bars(), photometric="YBR_PARTIAL_420", **tags)
    data = pydicom.dcmread(cine)
    step = -(-len(stream) // pieces)
    step += step % 2
    stream += b"\0" * (len(stream) % 2)
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]
    data.PixelData = _items(parts)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.save_as(path, enforce_file_format=True)
    return path


def _items(parts):
    return FIRST_ITEM + b"\0\0\0\0" + b"".join(itemize_fragment(part) for part in parts)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6), st.lists(st.integers(-210, 210), max_size=8))
def test_a_stream_over_fragments_is_the_whole(tmp_path_factory, content, cuts, moves):
    path = tmp_path_factory.mktemp("f") / "x"
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    parts = [content[a:b] for a, b in itertools.pairwise(edges)]
    raw = b"".join(FIRST_ITEM + len(part).to_bytes(4, "little") + part for part in (b"", *parts))
    path.write_bytes(b"before" + raw + b"\xfe\xff\xdd\xe0\0\0\0\0" + b"behind")
    ours, whole = FragmentStream(path, 6), io.BytesIO(content)
    for move in moves:
        whence = io.SEEK_END if move < 0 else io.SEEK_SET
        where = max(-len(content), move)
        assert ours.seek(where, whence) == whole.seek(where, whence)
        assert ours.read(abs(move) // 3) == whole.read(abs(move) // 3)
        assert ours.tell() == whole.tell()
    ours.seek(0)
    assert ours.read() == content
    ours.close()


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("codec", "container", "syntax"),
    [
        ("libx264", "mp4", H264),
        ("libx264", "mp4", f"{H264}.1"),
        ("libx264", "mpegts", H264),
        ("libx264", "h264", H264),
        ("mpeg2video", "mpeg", MPEG2),
        ("mpeg2video", "mpeg2video", MPEG2),
        ("libx265", "mp4", HEVC),
    ],
)
def test_frames_come_in_order_at_the_stated_times(tmp_path, codec, container, syntax, pieces):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    stream = video(tmp_path / "v", codec=codec, container=container)
    frames = list(Cine(write_video_cine(tmp_path / "c.dcm", stream, syntax, pieces=pieces, FrameTime=50)).frames(every(1)))
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.time_s for frame in frames] == pytest.approx([0.05 * k for k in range(9)])
    places = [place(frame.pixels) for frame in frames]
    assert all(a < b for a, b in itertools.pairwise(places))


def test_without_stated_times_the_streams_own_count(tmp_path):
    stream = video(tmp_path / "v", codec="libx264", container="mp4")
    cine = Cine(write_video_cine(tmp_path / "c.dcm", stream, H264))
    times = [frame.time_s for frame in cine.frames(every(1))]
    assert np.diff(times) == pytest.approx([0.04] * 8)
    assert cine.frames_per_second == pytest.approx(25)


def test_a_stream_that_is_cut_or_none_is_refused(tmp_path):
    stream = video(tmp_path / "v", codec="libx264", container="mpegts")
    for content in (stream[: len(stream) // 3], b"\0" * 4000, b"#EXTM3U\nfile:///etc/passwd\n" * 9):
        path = write_video_cine(tmp_path / "c.dcm", content, H264, FrameTime=40)
        with pytest.raises(InputError) as caught:
            list(Cine(path).frames(every(1)))
        assert caught.value.code in (Code.VIDEO, Code.TRUNCATED)


def test_a_transfer_syntax_that_nothing_decodes_is_named(tmp_path: Path):
    path = write_video_cine(tmp_path / "c.dcm", b"\0" * 400, "1.2.840.10008.1.2.4.95", FrameTime=40)
    with pytest.raises(InputError) as caught:
        list(Cine(path).frames(every(1)))
    assert caught.value.code is Code.TRANSFER_SYNTAX
    assert "codecs" not in caught.value.message
    assert "JPIP" in caught.value.message
