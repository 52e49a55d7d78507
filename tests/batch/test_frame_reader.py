"""Decoding in a process of its own: the same frames, and no way for a decoder to take the run with it."""

import os
import signal
import time

import numpy as np
import pytest

from agseg.batch.frame_reader import ClipError, FrameReader
from agseg.errors import Code, InputError
from agseg.io.video.clips import open_clip
from agseg.io.video.frames import Frame, every
from tests.ultrasound.scans import clip_of

SIDE = 64


class Made:
    """Frames made on the spot; the clip's name says what happens at the third one."""

    moving, size, frames_per_second, region = True, (SIDE, SIDE), 25.0, (1, 2, 30, 40)
    warnings = ()

    def __init__(self, clip):
        self.clip, self.frame_count = clip, 6
        if clip.id == "closed":
            raise InputError("this one cannot be read", code=Code.VIDEO)

    def frames(self, wanted):
        for index in range(self.frame_count):
            if index == 3:
                self._misbehave()
            if wanted(index):
                yield Frame(index, index / 25, np.full((SIDE, SIDE, 3), index, np.uint8))

    def _misbehave(self):
        match self.clip.id:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                time.sleep(600)
            case "quit":
                os._exit(0)
            case "memory":
                raise MemoryError
            case "bug":
                raise ZeroDivisionError("NAME^OF A PATIENT")


def numbers(source, wanted=None):
    found = []
    for frame in source.frames(wanted or every(1)):
        assert (frame.pixels == frame.index).all()
        assert frame.time_s == frame.index / 25
        found.append(frame.index)
    return found


@pytest.fixture(scope="module")
def reader():
    with FrameReader(Made, stall_s=5.0) as reader:
        yield reader


def test_a_clip_is_described_and_read_as_often_as_wanted(reader):
    source = reader.open(clip_of("sound"))
    assert (source.moving, source.size, source.frame_count, source.region) == (True, (SIDE, SIDE), 6, (1, 2, 30, 40))
    assert numbers(source) == [0, 1, 2, 3, 4, 5]
    assert numbers(source, every(2)) == [0, 2, 4]
    assert numbers(source, frozenset({1, 5}).__contains__) == [1, 5]


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("crash", Code.CRASHED, "failed"),
        ("quit", Code.CRASHED, "failed"),
        ("memory", Code.OUT_OF_MEMORY, "failed"),
        ("bug", Code.INTERNAL, "failed"),
        ("closed", Code.VIDEO, "rejected"),
    ],
)
def test_what_goes_wrong_costs_one_clip_and_the_next_is_read(reader, name, code, status):
    with pytest.raises(ClipError) as caught:
        numbers(reader.open(clip_of(name)))
    assert (caught.value.failure.code, caught.value.failure.status) == (code, status)
    assert "PATIENT" not in caught.value.failure.message
    assert numbers(reader.open(clip_of("sound"))) == [0, 1, 2, 3, 4, 5]


def test_a_decoder_that_hangs_is_ended_in_time():
    with FrameReader(Made, stall_s=3.0) as reader:
        source = reader.open(clip_of("hang"))
        with pytest.raises(ClipError) as caught:
            numbers(source)
        assert caught.value.failure.code == Code.TIMEOUT
        assert numbers(reader.open(clip_of("sound"))) == [0, 1, 2, 3, 4, 5]


def test_reading_may_stop_early_and_another_clip_may_be_opened_meanwhile(reader):
    first = reader.open(clip_of("sound")).frames(every(1))
    assert next(first).index == 0
    second = reader.open(clip_of("other"))
    assert numbers(second) == [0, 1, 2, 3, 4, 5]
    assert list(first) == []  # it was left; it must not take the other clip's frames
    third = second.frames(every(1))
    next(third)
    third.close()
    assert numbers(second) == [0, 1, 2, 3, 4, 5]


def test_a_real_video_arrives_as_it_is_read_here(tmp_path):
    pytest.importorskip("av")
    from tests.ultrasound.scans import fan_frame, write_video

    frames = [fan_frame((160, 120), box=(20, 10, 140, 110), seed=index) for index in range(7)]
    clip = clip_of("scan", write_video(tmp_path / "scan.mp4", frames))
    with FrameReader() as reader:
        there, here = reader.open(clip), open_clip(clip)
        assert (there.size, there.frame_count, there.frames_per_second) == (here.size, here.frame_count, here.frames_per_second)
        for one, other in zip(there.frames(every(2)), here.frames(every(2)), strict=True):
            assert (one.index, one.time_s) == (other.index, other.time_s)
            assert np.array_equal(one.pixels, other.pixels)
