"""The view follows a recording without jitter."""

import numpy as np

from agseg.io.video.frames import Frame
from agseg.ultrasound.fan import ViewKind
from agseg.ultrasound.views import LOOK_AGAIN, SEARCH_AGAIN, ViewTracker
from tests.ultrasound.scans import fan_frame


def follow(tracker, frames):
    return [tracker.view_of(Frame(i, i / 25, pixels)) for i, pixels in enumerate(frames)]


def test_speckle_does_not_move_the_view_of_a_recording():
    views = follow(ViewTracker(moving=True), [fan_frame(seed=i) for i in range(3)] * 20)
    assert len(set(views)) == 1


def test_a_new_depth_is_noticed():
    old, new = fan_frame(box=(160, 60, 500, 440)), fan_frame(box=(40, 30, 620, 470))
    views = follow(ViewTracker(moving=True), [old] * 10 + [new] * (2 * LOOK_AGAIN))
    assert views[0] != views[-1]
    assert views[-1].box[2] - views[-1].box[0] > 500


def test_a_recording_that_begins_black_finds_its_fan_and_keeps_it_through_a_fade():
    black, fan = np.zeros((480, 640, 3), np.uint8), fan_frame()
    views = follow(ViewTracker(moving=True), [black] * 3 + [fan] * 2 * SEARCH_AGAIN + [black] * 2 * LOOK_AGAIN)
    assert views[0].kind is ViewKind.WHOLE
    assert views[3 + SEARCH_AGAIN].kind is ViewKind.FAN
    assert views[-1].kind is ViewKind.FAN


def test_stills_have_a_view_each_and_a_crop_overrides_all():
    frames = [fan_frame(box=(160, 60, 500, 440)), fan_frame((800, 600), box=(60, 60, 700, 560))]
    stills = follow(ViewTracker(moving=False), frames)
    assert stills[0] != stills[1]
    given = follow(ViewTracker(moving=False, crop=(10, 20, 300, 400)), frames)
    assert {view.box for view in given} == {(10, 20, 300, 400)}
