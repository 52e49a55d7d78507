"""Smoothing, the unsure rule, segments and best frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agseg.ultrasound.timeline import (
    PLANES,
    SURE_BACKGROUND,
    SURE_PLANE,
    FrameState,
    best_frames,
    make_timeline,
    smooth,
    states,
)

BACKGROUND = PLANES.index("Background")


def row(plane, probability, rest="Background"):
    values = np.zeros(len(PLANES), np.float32)
    values[PLANES.index(plane)] += probability
    values[PLANES.index(rest)] += 1 - probability
    return values


def timeline(rows, *, moving=True, step_s=0.04):
    times = [i * step_s for i in range(len(rows))] if moving else [None] * len(rows)
    return make_timeline(np.array(rows, np.float32), classes=PLANES, indices=range(len(rows)), times_s=times, moving=moving)


probabilities = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(14)), elements=st.floats(0.0625, 1, width=32)).map(
    lambda a: (a / a.sum(axis=1, keepdims=True)).astype(np.float32)
)


@given(probabilities)
def test_smoothed_rows_are_probabilities_and_time_runs_both_ways(p):
    times = [0.04 * i for i in range(len(p))]
    forward = smooth(p, times)
    assert np.allclose(forward.sum(axis=1), 1, atol=1e-5)
    backward = smooth(p[::-1], times)[::-1]
    assert np.allclose(forward, backward, atol=1e-6)


@given(probabilities)
def test_a_steady_clip_is_left_as_it_is(p):
    steady = np.repeat(p[:1], 9, axis=0)
    assert np.allclose(smooth(steady, [0.04 * i for i in range(9)]), steady, atol=1e-6)


def test_a_single_odd_frame_is_smoothed_away_and_edges_stay_where_they_are():
    rows = [row("Femur", 0.9)] * 5 + [row("Lips", 0.99)] + [row("Femur", 0.9)] * 5 + [row("Kidneys", 0.6)] * 5
    found = timeline(rows)
    assert found.labels[5] == "Lips"
    assert found.smoothed_labels == ("Femur",) * 11 + ("Kidneys",) * 5


def test_frames_far_apart_in_time_are_not_smoothed_together():
    rows = [row("Femur", 0.9), row("Lips", 0.9), row("Femur", 0.9)]
    assert timeline(rows, step_s=1.0).smoothed_labels == ("Femur", "Lips", "Femur")
    assert timeline(rows, step_s=0.04).smoothed_labels[1] == "Femur"


def test_stills_are_not_smoothed_and_each_counts():
    found = timeline([row("Femur", 0.9), row("Lips", 0.9), row("Femur", 0.95)], moving=False)
    assert np.array_equal(found.smoothed, found.probabilities)
    assert best_frames(found) == {"Femur": 2, "Lips": 1}
    assert [segment.length for segment in found.segments] == [1, 1, 1]


@pytest.mark.parametrize(
    ("plane", "probability", "state"),
    [
        ("Femur", SURE_PLANE + 0.01, FrameState.PLANE),
        ("Background", SURE_BACKGROUND + 0.01, FrameState.BACKGROUND),
        ("Background", 0.3, FrameState.UNSURE),
        ("Femur", 0.3, FrameState.UNSURE),
    ],
)
def test_the_unsure_rule_at_its_thresholds(plane, probability, state):
    values = np.full(len(PLANES), (1 - probability) / (len(PLANES) - 1), np.float32)
    values[PLANES.index(plane)] = probability
    assert states(values[None], PLANES) == (state,)


def test_a_segment_needs_some_frames_and_its_best_frame_is_the_most_probable_of_them():
    rows = [row("Background", 0.9)] * 5 + [row("LVOT", p) for p in (0.6, 0.7, 0.9, 0.95, 0.8)] + [row("Background", 0.9)] * 5
    found = timeline(rows)
    assert [(s.label, s.first, s.last) for s in found.segments] == [("LVOT", 5, 9)]
    assert best_frames(found) == {"LVOT": 8}
    brief = timeline([row("Background", 0.9)] * 5 + [row("LVOT", 0.99)] * 2 + [row("Background", 0.9)] * 5)
    assert brief.segments == ()


def test_a_plane_needs_evidence_and_background_does_not():
    rows = np.zeros((9, len(PLANES)), np.float32)
    rows[:6, PLANES.index("Femur")] = 1.0
    rows[6:, BACKGROUND] = 1.0
    evidence = np.array([9, 9, 9, 1, 9, 9, 0, 0, 0], np.float32)

    def decided(**options):
        found = make_timeline(rows, classes=PLANES, indices=range(9), times_s=[0.04 * i for i in range(9)], **options)
        return [state.value for state in found.states]

    assert decided(moving=True) == ["plane"] * 6 + ["background"] * 3
    stills = decided(moving=False, evidence=evidence, least_evidence=5.0)
    assert stills == ["plane"] * 3 + ["unsure"] + ["plane"] * 2 + ["background"] * 3
    # A single poor frame is outvoted by its neighbours in time; the last one has as many poor neighbours as good ones.
    assert decided(moving=True, evidence=evidence, least_evidence=5.0)[:4] == ["plane"] * 4
    assert decided(moving=False, evidence=evidence, least_evidence=10.0) == ["unsure"] * 6 + ["background"] * 3
