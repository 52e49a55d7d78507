"""What a run says in a mail: what is new, and no more."""

from __future__ import annotations

import pytest

from agseg.cli.segment import _one_line_each
from agseg.errors import Code, ExitCode
from agseg.report import BatchReport, StudyReport, StudyStatus


def report(*studies: StudyReport) -> BatchReport:
    return BatchReport("1", "", "", ExitCode.SOME_NOT_DONE, (), {}, {}, studies, {})


def test_a_rejection_is_said_once_and_a_failure_as_long_as_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    mr = StudyReport("mr", StudyStatus.REJECTED, code=Code.MODALITY, message="the series is MR: expected CT")
    known = StudyReport("us", StudyStatus.REJECTED, code=Code.MODALITY, message="the series is US: expected CT", new=False)
    failed = StudyReport("ct", StudyStatus.FAILED, code=Code.TIMEOUT, message="it took longer than 3600 s")
    _one_line_each(report(mr, known, failed))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["rejected mr", "failed ct"]
    _one_line_each(report(known))
    assert capsys.readouterr().err == ""
