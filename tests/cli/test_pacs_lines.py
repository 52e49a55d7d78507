"""What ``agseg pacs pull`` and ``push`` say."""

from __future__ import annotations

import pytest

from agseg.cli.pacs import told_lines
from agseg.errors import Code
from agseg.workflows.pacs import PacsRecord, PacsReport, PacsStatus

SERIES = (
    PacsRecord("a/1", PacsStatus.PRESENT, 35),
    PacsRecord("a/2", PacsStatus.WOULD, 1),
    PacsRecord("b/1", PacsStatus.WOULD, 60),
)


def test_a_dry_run_names_what_would_be_moved_and_how_much_it_is() -> None:
    lines = told_lines(PacsReport("pull", SERIES))
    assert lines == ["to pull a/2, 1 image", "to pull b/1, 60 images", "pull: 1 present, 2 to pull"]


def test_verbose_names_every_one_and_quiet_none() -> None:
    assert told_lines(PacsReport("push", SERIES), verbose=True)[0] == "present a/1"
    assert told_lines(PacsReport("push", SERIES), quiet=True) == []


@pytest.mark.parametrize(("quiet", "said"), [(False, ["Nothing matches."]), (True, [])])
def test_a_quiet_day_is_said_unless_it_is_not_asked_for(quiet: bool, said: list[str]) -> None:
    assert told_lines(PacsReport("pull", ()), quiet=quiet) == said


def test_failures_have_lines_of_their_own() -> None:
    failed = PacsRecord("a/1", PacsStatus.FAILED, 0, Code.PACS, "the archive refused")
    assert told_lines(PacsReport("pull", (failed,))) == ["pull: 1 failed"]
