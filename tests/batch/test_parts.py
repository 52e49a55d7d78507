"""Parts of one run on several machines share an output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from agseg.batch import Part, claim_output
from agseg.batch import output as module
from agseg.batch.output import TEMPORARY, temporary_name

DEAD = 2**22 + 1
"""Larger than any process id."""


def test_a_part_leaves_what_another_machine_writes_and_a_whole_run_sweeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "getpid", lambda: DEAD)
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
