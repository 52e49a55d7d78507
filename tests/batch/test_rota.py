"""Laws of giving studies out: each ends exactly once, and a study that kills workers takes no other one with it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agseg.batch.job import StudyTask
from agseg.batch.rota import ATTEMPTS, SHARED_DEATHS, Rota
from agseg.errors import Code
from agseg.study import Study, StudyKind


def tasks(count: int) -> list[StudyTask]:
    studies = (Study(f"s{number}", Path("/in"), (), StudyKind.NIFTI) for number in range(count))
    return [StudyTask(study, Path("/out"), study.id, {}) for study in studies]


@given(st.integers(0, 5), st.data())
def test_every_study_ends_exactly_once_whatever_becomes_of_the_workers(count, data):
    rota = Rota()
    rota.add(tasks(count))
    ended: list[str] = []
    while rota:
        alone = not rota.pending
        task = rota.take(alone=alone)
        event, failure = data.draw(st.sampled_from(["answer", "again", "lost"])), None
        if event == "again":
            failure = rota.again(task)
        elif event == "lost":
            failure = rota.lost(task, alone=alone)
        if event == "answer" or failure is not None:
            ended.append(task.output)
        assert rota.given <= count * (ATTEMPTS + SHARED_DEATHS + 1)
    assert sorted(ended) == sorted(task.output for task in tasks(count))


def test_a_study_that_kills_its_workers_is_tried_alone_and_fails_alone():
    rota, ended = Rota(), {}
    rota.add(tasks(4))
    killer = "s1"
    while rota:
        alone = not rota.pending
        batch = [rota.take(alone=alone) for _ in range(1 if alone else min(2, len(rota.pending)))]
        dies = any(task.output == killer for task in batch)
        assert rota.given < 4 * (SHARED_DEATHS + 2), "the killer is given out for ever"
        for task in batch:
            failure = rota.lost(task, alone=alone) if dies else None
            if failure is not None or not dies:
                ended[task.output] = failure
    assert {name for name, failure in ended.items() if failure is not None} == {killer}
    assert len(ended) == 4
    assert ended[killer].code == Code.CRASHED
    assert f"{SHARED_DEATHS + 1} workers" in ended[killer].message


def test_what_never_comes_back_is_given_up():
    rota = Rota()
    rota.add(tasks(1))
    failures = [rota.again(rota.take()) for _ in range(ATTEMPTS)]
    assert failures[:-1] == [None] * (ATTEMPTS - 1)
    assert failures[-1].code == Code.CRASHED
    assert not rota


def test_what_is_left_is_all_that_waits_suspects_last():
    rota = Rota()
    rota.add(tasks(3))
    first = rota.take()
    assert rota.lost(first, alone=False) is None
    assert rota.left[0] == first, "the first loss costs a study its place in the queue only for a moment"
    assert rota.lost(rota.take(), alone=False) is None
    assert [task.output for task in rota.left] == ["s1", "s2", "s0"]
    assert len(rota) == 3
