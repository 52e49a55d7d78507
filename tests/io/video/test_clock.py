"""The clock: frames come in the order in which they are shown, and so do their times, whatever the container knows."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agseg.io.video.clock import Clock

TIMES = st.lists(st.integers(0, 10_000), min_size=1, max_size=30, unique=True).map(lambda t: [v / 1000 for v in sorted(t)])


def run(times_of_packets, said, *, trusted, ahead, rate=25.0):
    """All packets and frames of a decoder that holds back ``ahead`` packets."""
    clock, given_times = Clock(rate, trusted=trusted), []
    for number, time_s in enumerate(times_of_packets):
        clock.packet(time_s)
        if number >= ahead:
            given_times.append(clock.frame(said[number - ahead]))
    given_times += [clock.frame(time_s) for time_s in said[len(times_of_packets) - min(ahead, len(times_of_packets)) :]]
    return given_times, clock


@given(TIMES, st.integers(0, 4), st.data())
def test_jumbled_times_of_frames_are_put_right_from_the_packets(times, ahead, data):
    said = data.draw(st.permutations(times))
    found, clock = run(times, said, trusted=False, ahead=ahead)
    assert found == times
    assert clock.guessed == 0


@given(TIMES, st.integers(0, 4))
def test_times_that_a_container_gives_are_kept(times, ahead):
    assert run(times, times, trusted=True, ahead=ahead)[0] == times


@given(st.lists(st.none() | st.floats(-5, 5), min_size=1, max_size=20), st.booleans())
def test_times_increase_whatever_is_said(said, trusted):
    found, _ = run([None] * len(said), said, trusted=trusted, ahead=0)
    assert all(a < b for a, b in itertools.pairwise(found))


def test_without_times_and_rate_nothing_is_invented():
    found, clock = run([None] * 3, [None] * 3, trusted=True, ahead=0, rate=None)
    assert found == [None] * 3
    assert clock.guessed == 3
