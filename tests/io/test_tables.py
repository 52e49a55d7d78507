from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from agseg.errors import Code, ExitCode
from agseg.io.tables import COLUMNS, table_text, write_volumes
from agseg.report import DISCLAIMER, BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus, WeightsRef


def table(tmp_path: Path, *studies: StudyReport) -> list[dict[str, str]]:
    weights = (WeightsRef("w", "s", "a", "l"), WeightsRef("x", "t", "a", "l"))
    write_volumes(tmp_path / "volumes.csv", BatchReport("1", "", "", ExitCode.OK, weights, {}, {}, studies, {}))
    with (tmp_path / "volumes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_per_study_and_organ_and_one_for_a_study_without(tmp_path: Path) -> None:
    organs = (
        Measurement(
            "liver", OrganStatus.PRESENT, 1500.1234, 50, 60.0, review=("low margin", "many components"), weights="w", run="r1"
        ),
        Measurement("spleen", OrganStatus.ABSENT, None, 0, weights="x", run="r2"),
        Measurement("pancreas", OrganStatus.CUT_OFF, 12.0, 5, 40.0, touches_border=True),
    )
    rows = table(
        tmp_path,
        StudyReport("a", StudyStatus.DONE, organs=organs),
        StudyReport("b", StudyStatus.REJECTED, code=Code.MISSING_SLICES, message="m"),
    )
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["study"], row["organ"], row["volume_ml"]) for row in rows] == [
        ("a", "liver", "1500.123"), ("a", "spleen", ""), ("a", "pancreas", "12.000"), ("b", "", ""),
    ]  # fmt: skip
    assert rows[0]["review"] == "low margin; many components"
    assert rows[2]["touches_border"] == "yes"
    assert rows[3]["code"] == "E_MISSING_SLICES"
    assert [(row["weights"], row["weights_sha256"], row["run"]) for row in rows] == [
        ("w", "s", "r1"), ("x", "t", "r2"), ("", "", ""), ("", "", ""),
    ]  # fmt: skip
    assert {row["note"] for row in rows} == {DISCLAIMER}


def test_a_name_does_not_become_a_formula_or_a_second_row(tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1", "@x", "a,b", 'q"q', "new\nline"]
    rows = table(tmp_path, *(StudyReport(name, StudyStatus.DEFERRED) for name in names))
    assert [row["study"] for row in rows] == ["'=1+1", "'+1", "-1", "'@x", "a,b", 'q"q', r"new\x0aline"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "name", ["x\r=1+1", "x;=1+1/v", "x,=1+1", '"=1+1', "x\t=1+1", "x\n=1+1", "=1+1", "x\x1b[2J", "a|@b", "x\x0b-2"]
)
def test_promise_49_no_spreadsheet_of_any_locale_runs_a_name_or_makes_a_row_of_it(separator, name):
    text = table_text([("study", "ml"), (name, "-3.25"), ("plain", "12")])
    assert len(list(csv.reader(io.StringIO(text, newline=""), strict=True))) == 3
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or (cell.startswith("-") and cell != "-3.25")]
    assert all(character.isprintable() for character in text.replace("\n", ""))
