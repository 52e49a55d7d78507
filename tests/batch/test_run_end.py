"""What a run leaves for other programs: metrics, the site's own command, the audit log, tables for Excel."""

from __future__ import annotations

import csv
import json
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agseg.batch.audit import append, ended, first_broken_line
from agseg.batch.run_end import check_command, prometheus_text, run_command, write_metrics
from agseg.errors import Code, ExitCode, OutputError, UsageError
from agseg.io.tables import TableStyle, table_text, write_volumes
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus
from tests.batch.fakes import write_study
from tests.batch.test_run import run

LIVER = Measurement("liver", OrganStatus.PRESENT, 1500.5, 10, -12.25, review=("low margin (mean probability 0.60)",))
STUDIES = (
    StudyReport("a", StudyStatus.DONE, organs=(LIVER,)),
    StudyReport("b", StudyStatus.REJECTED, code=Code.MODALITY),
    StudyReport("c", StudyStatus.REJECTED, code=Code.MODALITY, new=False),
)
REPORT = BatchReport(
    "1", "2026-01-02T01:00:00+00:00", "2026-01-02T02:00:00+00:00", ExitCode.SOME_NOT_DONE, (), {}, {}, STUDIES, {}
)


def values(text: str) -> dict[str, float]:
    """Prometheus' text format: comment lines, and a name with labels and a number per line."""
    assert text.endswith("\n")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, number = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[a-z]+"\})?) (\S+)', line).groups()
            found[name] = float(number)
    return found


def test_metrics_say_what_happened_and_remember_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "agseg.prom"
    write_metrics(REPORT, path)
    found = values(path.read_text())
    assert found["agseg_run_exit_code"] == 3
    assert found["agseg_run_duration_seconds"] == 3600
    assert found['agseg_studies{status="rejected"}'] == 2
    assert found["agseg_new_failures"] == 1
    assert found["agseg_review_studies"] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    success = found["agseg_last_success_timestamp_seconds"]
    broken = replace(REPORT, exit_code=ExitCode.BUG, finished="2026-01-03T02:00:00+00:00")
    write_metrics(broken, path)
    later = values(path.read_text())
    assert later["agseg_last_success_timestamp_seconds"] == success < later["agseg_run_timestamp_seconds"]
    assert values(prometheus_text(broken))["agseg_last_success_timestamp_seconds"] == 0


def test_the_command_gets_the_record_and_no_shell(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = tmp_path / "hook.py"
    script.write_text(
        "import json, os, sys\n"
        "said = [sys.argv[1:], os.environ['AGSEG_EXIT_CODE'], os.environ['AGSEG_NEW_FAILURES']]\n"
        f"json.dump(said, open({str(said)!r}, 'w'))\n"
    )
    run_command(f"{sys.executable} {script} '$(touch pwned); x'", REPORT, tmp_path / "run.json")
    assert json.loads(said.read_text()) == [["$(touch pwned); x", str(tmp_path / "run.json")], "3", "1"]


@pytest.mark.parametrize("command", ["/nowhere/at/all", f"{sys.executable} -c 'raise SystemExit(5)'"])
def test_a_command_that_fails_is_said(command: str, tmp_path: Path) -> None:
    check_command(command)
    with pytest.raises(OutputError, match="--on-end failed"):
        run_command(command, REPORT, tmp_path / "run.json")


@pytest.mark.parametrize("command", ["", "  ", "mail 'unclosed"])
def test_a_command_that_is_none_is_refused_before_the_run(command: str) -> None:
    with pytest.raises(UsageError):
        check_command(command)


def test_the_audit_log_shows_a_line_that_was_changed_or_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "log" / "audit.jsonl"
    append(path, {"event": "run-begun"})
    append(path, *ended(REPORT))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run-begun", "study", "study", "study", "run-ended"]
    assert all(line["user"] or line["uid"] >= 0 for line in lines)
    assert first_broken_line(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"E_MODALITY"', b"null", 1))
    assert first_broken_line(path) == 4
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:1] + whole.splitlines(keepends=True)[2:]))
    assert first_broken_line(path) == 2
    path.write_bytes(whole[:-5])
    with pytest.raises(OutputError, match="within a line"):
        append(path, {"event": "run-begun"})


def test_the_audit_log_says_which_input_a_mask_was_made_from(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "one.nii.gz")
    first, again = (ended(run(tmp_path / "in", tmp_path / "out"))[0] for _ in range(2))
    assert (first["status"], again["status"]) == ("done", "skipped")
    assert (
        first["fingerprint"] == again["fingerprint"] == json.loads((tmp_path / "out/one/study.json").read_text())["fingerprint"]
    )


def test_tables_open_in_excel_of_any_country(tmp_path: Path) -> None:
    named = replace(STUDIES[0], input="Mueller/Bäuch; 1.5")
    report = replace(REPORT, studies=(named,))
    for style, separator, number in ((TableStyle.EXCEL, ",", "-12.25"), (TableStyle.EXCEL_SEMICOLON, ";", "-12,25")):
        write_volumes(tmp_path / "v.csv", report, style=style)
        content = (tmp_path / "v.csv").read_bytes()
        assert content.startswith(b"\xef\xbb\xbf")
        (row,) = csv.DictReader(content.decode("utf-8-sig").splitlines(), delimiter=separator)
        assert row["study"] == "Mueller/Bäuch; 1.5"
        assert row["mean_hu"] == number
        assert row["review"].startswith("low margin (mean probability 0.60")
    assert table_text([["a", "1.5"]]) == '"a","1.5"\n'


def test_a_run_writes_its_table_as_asked(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "one.nii.gz")
    run(tmp_path / "in", tmp_path / "out", table_style=TableStyle.EXCEL_SEMICOLON)
    assert (tmp_path / "out" / "volumes.csv").read_bytes().startswith(b'\xef\xbb\xbf"study";')
