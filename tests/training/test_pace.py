"""Laws of the stopwatch and of the number of drawing processes."""

from __future__ import annotations

import csv
import logging
import os
import select
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from agseg.training.batches import DrawBatches, workers_for
from agseg.training.history import History, Progress
from agseg.training.loop import Batch
from agseg.training.pace import Pace, Speed
from agseg.training.sample import Sample


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr("agseg.training.pace.time.perf_counter", lambda: now[0])
    return now


def test_speed_is_what_the_clock_says_and_begins_anew_when_it_was_told(clock) -> None:
    def stream():
        while True:
            clock[0] += 3.0
            yield Batch(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))

    pace, batches = Pace(processes=4), stream()
    for _ in range(5):
        with pace.step():
            pace.next_of(batches)
            clock[0] += 1.0
        clock[0] += 50.0  # a validation
    assert pace.told() == Speed(samples_per_second=2 * 4 / 4.0, wait_share=0.75)
    assert pace.told() == Speed(0.0, 0.0)


@pytest.mark.parametrize(
    ("cores", "processes", "on_gpu", "workers"),
    [
        (1, 1, True, 0),
        (2, 1, True, 1),
        (16, 1, True, 8),
        (16, 4, True, 3),
        (2, 4, True, 0),
        (16, 1, False, 1),
        (1, 1, False, 0),
    ],
)
def test_cores_are_left_for_the_steps(cores, processes, on_gpu, workers) -> None:
    assert workers_for(cores=cores, processes=processes, on_gpu=on_gpu) == workers


class Draws(torch.utils.data.Dataset):
    def __getitem__(self, number: int) -> Sample:
        return Sample(torch.full((1, 10, 10), float(number)), torch.zeros(10, 10, dtype=torch.uint8), None, "a")


def test_little_shared_memory_means_fewer_workers_and_the_same_batches(monkeypatch, caplog) -> None:
    usage = namedtuple("usage", "total used free")
    for free, told in ((10**9, ""), (4000, ": 1, not 2"), (10, ": 0, not 2")):
        monkeypatch.setattr("agseg.training.batches.shutil.disk_usage", lambda _path, free=free: usage(0, 0, free))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = [float(b.image[0, 0, 0, 0]) for b in DrawBatches(Draws(), size=2, workers=2).batches(1, 4)]
        assert found == [2.0, 4.0, 6.0]
        assert told in caplog.text
        assert bool(told) == bool(caplog.text)


def test_a_log_of_an_earlier_version_goes_on(tmp_path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,learning_rate,seconds_per_step,score\n1,0.5,1e-3,0.1,\n2,0.4,1e-3,0.1,\n")
    history = History.open(tmp_path, from_step=1, writes=True)
    history.add(Progress(2, 9, 0.3, 1e-3, 0.1, None, {}, Speed(5.7, 0.4)))
    history.close()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert [row["wait_share"] for row in rows] == ["", "0.400"]
    assert rows[1]["samples_per_second"] == "5.7"


class Whose(torch.utils.data.Dataset):
    """Samples that hold the process that drew them."""

    def __getitem__(self, number: int) -> Sample:
        return Sample(torch.tensor([[[float(os.getpid())]]]), torch.zeros(1, 1, dtype=torch.uint8), None, "a")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_every_process_of_a_job_lets_the_batches_of_the_last_step_come(number) -> None:
    stream = DrawBatches(Whose(), size=1, workers=1).batches(0, 40)
    drawer = int(next(stream).image)
    assert drawer != os.getpid()
    os.kill(drawer, getattr(signal, number))
    assert {int(batch.image) for batch in stream} == {drawer}


class Stuck(torch.utils.data.Dataset):
    """Samples of which the third never comes."""

    def __getitem__(self, number: int) -> Sample:
        if number == 2:
            signal.pause()
        return Sample(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.uint8), None, "a")


RUN = """
import os, signal, sys
from tests.training.test_pace import DrawBatches, Stuck
stream = DrawBatches(Stuck(), size=1, workers=2).batches(0, 40)
next(stream), next(stream)
os.write(int(sys.argv[1]), b"drawing")
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_processes_that_draw_end_with_a_run_that_is_killed(number) -> None:
    """Every process of the run holds one end of a pipe; the other one ends when all of them have."""
    ours, theirs = os.pipe()
    with subprocess.Popen([sys.executable, "-c", RUN, str(theirs)], pass_fds=[theirs], cwd=Path(__file__).parents[2]) as run:
        os.close(theirs)
        assert os.read(ours, 7) == b"drawing"
        run.send_signal(getattr(signal, number))
        ended, _, _ = select.select([ours], [], [], 60)
    assert ended
    assert os.read(ours, 1) == b""
    os.close(ours)
