"""Parts of one run on several machines share an output folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.batch import Part, claim_output
from agseg.batch import output as module
from agseg.batch.decide import decide
from agseg.batch.output import TEMPORARY, Output, temporary_name
from agseg.io.discover import discover
from tests.batch.fakes import job, write_study

DEAD = 2**22 + 1
"""Larger than any process id."""


def planned(source: Path, target: Path, part: Part) -> dict[str, str]:
    """What a part would do: studies and their folders."""
    return {task.study.id: task.output for task in decide(discover([source]), job(source), Output(target, part), run="r").tasks}


def test_a_study_that_arrives_between_parts_shifts_no_other(tmp_path: Path) -> None:
    names = [f"study{number}" for number in range(12)]
    for name in names:
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    done: list[str] = []
    for index in range(3):
        # Sorted before all others: shares by position would move every study by one.
        write_study(tmp_path / "in" / f"{'a' * (3 - index)}.nii.gz")
        done += planned(tmp_path / "in", tmp_path / "out", Part(index, 3))
    assert sorted(name for name in done if name in names) == sorted(names)
    assert len(done) == len(set(done))


@given(st.text(min_size=1), st.integers(1, 40))
def test_every_study_belongs_to_exactly_one_part(name: str, count: int) -> None:
    assert sum(Part(index, count).has(name) for index in range(count)) == 1


def test_names_that_are_no_text_belong_to_a_part_too() -> None:
    assert sum(Part(index, 3).has("latin-\udce9") for index in range(3)) == 1


def test_parts_never_give_one_folder_to_two_studies(tmp_path: Path) -> None:
    # "runs" is a name of ours, so it becomes "study-runs": which is there already, perhaps in another part.
    for name in ("runs", "study-runs"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    for count in range(1, 6):
        plans = [planned(tmp_path / "in", tmp_path / "out", Part(index, count)) for index in range(count)]
        folders = [folder for plan in plans for folder in plan.values()]
        assert len(folders) == len(set(folders)) == 2


def test_a_part_leaves_what_another_machine_writes_and_a_whole_run_sweeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: DEAD)
    ours = tmp_path / temporary_name()
    monkeypatch.setattr(module, "_machine", lambda: "0123abcd")
    theirs = tmp_path / temporary_name()
    monkeypatch.undo()
    for folder in (ours, theirs):
        assert TEMPORARY.fullmatch(folder.name)
        folder.mkdir()
    with claim_output(tmp_path, part=Part(0, 2)):
        assert not ours.exists()
        assert theirs.exists()
    assert theirs.exists()
    with claim_output(tmp_path):
        assert not theirs.exists()
