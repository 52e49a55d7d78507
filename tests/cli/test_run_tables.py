"""What a person reads of a run on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from agseg.cli import console
from agseg.cli.segment import show
from agseg.errors import Code, ExitCode
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus

Shown = Callable[..., list[str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The lines that a terminal of so many columns shows of studies."""

    def on(*studies: StudyReport, width: int = 100) -> list[str]:
        text = io.StringIO()
        monkeypatch.setattr(console, "stdout", lambda: Console(file=text, width=width, highlight=False))
        show(BatchReport("1", "", "", ExitCode.OK, (), {}, {}, studies, {}), Path("out"))
        return text.getvalue().splitlines()

    return on


def done(name: str, status: StudyStatus = StudyStatus.DONE) -> StudyReport:
    organs = (Measurement("kidney_right", OrganStatus.CUT_OFF, 74.5, mean_hu=31.0, review=("in two parts (8 %)",)),)
    return StudyReport(name, status, name, organs=organs)


def test_a_narrow_terminal_breaks_no_word_of_a_table(shown: Shown) -> None:
    refused = StudyReport("totalseg_full/mr", StudyStatus.REJECTED, code=Code.MODALITY, message="the series is MR: expected CT")
    lines = shown(done("totalseg_full/example_ct"), refused, width=60)
    words = {word.strip(";()") for line in lines for word in line.split()}
    assert {"kidney_right", "cut_off", "74.5", "parts", "E_MODALITY", "rejected", "expected"} <= words
    assert max(map(len, lines)) <= 60


def test_of_many_studies_those_of_earlier_nights_are_counted(shown: Shown) -> None:
    earlier = [done(f"earlier-{number}", StudyStatus.SKIPPED) for number in range(30)]
    text = "\n".join(shown(done("tonight"), *earlier))
    assert "tonight" in text
    assert "earlier-" not in text
    assert "30 more were done earlier" in text


def test_of_a_few_studies_all_are_shown(shown: Shown) -> None:
    text = "\n".join(shown(done("tonight"), done("earlier-1", StudyStatus.SKIPPED)))
    assert "earlier-1" in text
    assert "more were done earlier" not in text


def test_a_folder_may_be_called_like_markup(shown: Shown) -> None:
    assert any(line.startswith("[red]") for line in shown(done("[red]")))
