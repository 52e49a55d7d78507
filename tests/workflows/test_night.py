"""Laws of a night: one lock, one record, one exit code, and a mail only if something is new."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agseg.batch.decide import REJECTED_BY
from agseg.batch.output import claim_output
from agseg.cli.app import app
from agseg.cli.pacs import pacs_lines
from agseg.errors import Code, ExitCode, UsageError
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.workflows.night_record import NightReport, StepError, failures_of, known_failures, write_night
from agseg.workflows.pacs import PacsRecord, PacsReport, PacsStatus
from agseg.workflows.site import load_site, option_words
from tests.io.pacs.orthanc import in_a_namespace
from tests.workflows.night_studies import BROKEN, GOOD, REFILED, RIGHT


def batch(*studies: StudyReport, exit_code: ExitCode = ExitCode.SOME_NOT_DONE) -> BatchReport:
    return BatchReport(version="0", started="a", finished="b", exit_code=exit_code, weights=(), parameters={}, environment={},
                       studies=studies, files={})  # fmt: skip


def rejected(name: str, code: Code = Code.MISSING_SLICES, modality: str = "CT") -> StudyReport:
    extra = {} if modality == "CT" else {REJECTED_BY: "discovery"}
    return StudyReport(input=name, status=StudyStatus.REJECTED, code=code, message="it is so", modality=modality, extra=extra)


def done(name: str) -> StudyReport:
    return StudyReport(input=name, status=StudyStatus.DONE)


def ended(root: Path, **parts: Any) -> NightReport:
    """A night's report as it is written, with last night's in the folder."""
    report = NightReport(started="2026-01-02T03:04:05+00:00", finished="2026-01-02T04:00:00+00:00", **parts)
    report.failures = failures_of(report, known_failures(root), root=root)
    write_night(report, root)
    return report


def test_a_failure_is_told_once_and_again_only_if_it_is_another(tmp_path: Path) -> None:
    first = ended(tmp_path, run=batch(done("a"), rejected("b")))
    assert (first.exit_code, len(first.lines())) == (ExitCode.SOME_NOT_DONE, 1)
    again = ended(tmp_path, run=batch(done("a"), rejected("b")))
    assert (again.exit_code, again.lines()) == (ExitCode.OK, [])
    assert json.loads((tmp_path / "night.json").read_text())["failures"][0]["new"] is False
    other = ended(tmp_path, run=batch(done("a"), rejected("b", Code.TRUNCATED)))
    assert len(other.lines()) == 1
    cured = ended(tmp_path, run=batch(done("a"), done("b"), exit_code=ExitCode.OK))
    assert (cured.exit_code, cured.lines()) == (ExitCode.OK, [])


def test_studies_of_other_modalities_are_no_failures(tmp_path: Path) -> None:
    report = ended(tmp_path, run=batch(rejected("mr", Code.MODALITY, "MR"), rejected("us", Code.MODALITY, "US")))
    assert (report.exit_code, report.lines()) == (ExitCode.OK, [])
    not_hu = ended(tmp_path, run=batch(rejected("values", Code.MODALITY)))
    assert not_hu.exit_code is ExitCode.NONE_DONE


def test_an_archive_that_is_down_is_told_every_night_in_one_line(tmp_path: Path) -> None:
    for _ in range(2):
        down = StepError("pull main", "E_PACS", "the archive does not answer", ExitCode.NONE_DONE)
        report = ended(tmp_path, errors=[down])
        assert (report.exit_code, len(report.lines())) == (ExitCode.NONE_DONE, 1)


def test_many_objects_that_fail_alike_are_one_line(tmp_path: Path) -> None:
    records = tuple(PacsRecord(f"s/{n}", PacsStatus.FAILED, 1, Code.PACS, "refused") for n in range(300))
    report = ended(tmp_path, pushed={"main": PacsReport("push", records)})
    assert report.lines() == ["push main: 300 times E_PACS refused"]


def test_push_says_once_what_to_do_about_many_objects_that_fail_alike() -> None:
    failed = tuple(PacsRecord(f"s/{n}", PacsStatus.FAILED, 1, Code.PACS, "refused", "Ask its keeper.") for n in range(9))
    one = PacsRecord("s/x", PacsStatus.FAILED, 1, Code.PACS, "it is so")
    report = PacsReport("push", (*failed, one))
    assert pacs_lines(report) == ["9 of 10: E_PACS: refused", "  Ask its keeper.", "s/x: E_PACS: it is so"]
    assert "hint" not in report.to_dict()["records"][0]


@pytest.mark.parametrize("code", [ExitCode.OUTPUT, ExitCode.WEIGHTS, ExitCode.DEADLINE, ExitCode.BUG])
def test_what_ends_a_run_is_the_nights_exit_code(tmp_path: Path, code: ExitCode) -> None:
    assert ended(tmp_path, run=batch(done("a"), exit_code=code)).exit_code is code
    assert ended(tmp_path, errors=[StepError("segment", "E", "so", code)]).exit_code is code


def test_a_night_in_which_nothing_came_is_quiet(tmp_path: Path) -> None:
    report = ended(tmp_path, pulled={"main": PacsReport("pull", ())}, run=batch(exit_code=ExitCode.NO_STUDY))
    assert (report.exit_code, report.lines()) == (ExitCode.OK, [])


# -- the site's file ------------------------------------------------------------------------------------------------------

SITE = """incoming: in
output: out
archives:
  main: {{pacs: "{address}", retries: 0, timeout: 2{more}}}
segment: {{organ: [{organ}], device: cpu}}
"""


def site(
    folder: Path, *, address: str = "dicom://A@127.0.0.1:1", more: str = "", organ: str = "liver", extra: str = ""
) -> Path:
    path = folder / "site.yaml"
    path.write_text(SITE.format(address=address, more=more, organ=organ) + extra)
    return path


def test_paths_are_below_the_files_folder_and_keys_take_either_dash(tmp_path: Path) -> None:
    found = load_site(site(tmp_path, more=", move-port: 11113, move_from: [B@10.0.0.0/8]", extra="keep: 30d\n"))
    assert (found.incoming, found.output) == (tmp_path / "in", tmp_path / "out")
    assert found.archives["main"].limits().move_port == 11113


@pytest.mark.parametrize(
    "extra",
    ["colour: red\n", "keep: soon\n", "archives: {}\n", "listen: {}\n", "listen: {port: 1}\n",
     "listen: {port: 1, allow: [X]}\n",
     "listen: {watch: w, send_to: nobody}\n", "listen: {watch: w, quiet: 0s}\n"],
)  # fmt: skip
def test_a_file_that_says_what_cannot_be_is_refused_with_its_line(tmp_path: Path, extra: str) -> None:
    with pytest.raises(UsageError, match="line"):
        load_site(site(tmp_path, extra=extra))


def test_options_of_segment_are_those_of_the_command_line() -> None:
    words = option_words(
        {"organ": ["liver", "spleen"], "fast": True, "preview": False, "min_age": 60}, refused=frozenset({"output"})
    )
    assert words == ["--organ", "liver", "--organ", "spleen", "--fast", "--no-preview", "--min-age", "60"]
    with pytest.raises(UsageError):
        option_words({"output": "x"}, refused=frozenset({"output"}))


@pytest.mark.parametrize(
    "change", [{"organ": "livr"}, {"more": ", colour: red"}, {"extra": "since: soon\n"}, {"extra": "keep: 1d\n"}]
)
def test_a_night_that_is_asked_for_what_cannot_be_does_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    outcome = CliRunner().invoke(app, ["night", "--config", str(site(tmp_path, **change))])
    assert isinstance(outcome.exception, UsageError) or outcome.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["site.yaml"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("colour: red", "line 7: agseg segment has no option 'colour'"),
        ("overlapp: 0.5", "line 7: agseg segment has no option 'overlapp'"),
        ("output: elsewhere", "line 7: 'output' cannot stand here"),
        ("overlap: 3", "line 7: 'overlap' does not take this value"),
        ("fast: maybe", "line 7: 'fast' does not take this value"),
        ("weights: {a: b}", "line 7: the value of 'weights'"),
        ("csv: excl", "The file says csv: excl. (line 7)"),
        ("weights: nobodys", "The file says weights: nobodys. (line 7)"),
    ],
)
def test_what_segment_does_not_take_is_refused_with_its_line(tmp_path: Path, option: str, words: str) -> None:
    path = tmp_path / "site.yaml"
    head = "incoming: in\noutput: out\narchives:\n  main: {pacs: 'dicom://A@127.0.0.1:1'}\n"
    path.write_text(f"{head}segment:\n  organ: [liver]\n  {option}\n")
    outcome = CliRunner().invoke(app, ["night", "--config", str(path)])
    assert isinstance(outcome.exception, UsageError)
    assert words in f"{outcome.exception.sentence()} {outcome.exception.hint}"
    assert outcome.exception.path == path
    assert [found.name for found in tmp_path.iterdir()] == ["site.yaml"]


def test_one_lock_for_the_whole_night(tmp_path: Path) -> None:
    from agseg.errors import LockedError

    with claim_output(tmp_path / "out"):
        outcome = CliRunner().invoke(app, ["night", "--config", str(site(tmp_path))])
    assert isinstance(outcome.exception, LockedError)


@pytest.mark.slow
def test_a_night_whose_archive_is_down_says_so_in_one_line_and_leaves_a_record(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcome = CliRunner().invoke(app, ["night", "--config", str(site(tmp_path, address=f"dicom://A@127.0.0.1:{port}"))])
    assert outcome.exit_code == ExitCode.NONE_DONE
    lines = outcome.output.splitlines()
    assert [line.split(":")[0] for line in lines] == ["pull main", "pull"]
    assert json.loads((tmp_path / "out" / "night.json").read_text())["exit_code"] == ExitCode.NONE_DONE


def test_a_night_names_the_file_that_it_cannot_use_and_says_what_to_do(tmp_path: Path) -> None:
    secret = tmp_path / "pacs.yaml"
    secret.write_text("user: a\npassword: b\n")
    secret.chmod(0o644)
    outcome = CliRunner().invoke(app, ["night", "--config", str(site(tmp_path, more=f", credentials: {secret}"))])
    assert outcome.exit_code == ExitCode.USAGE
    said, hint, *_ = outcome.output.splitlines()
    assert said.startswith(f"pull main: E_USAGE {secret}: others may read the credentials file")
    assert hint == f"  chmod 600 {secret}"
    assert str(secret) in json.loads((tmp_path / "out" / "night.json").read_text())["errors"][0]["message"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nights_against_a_real_orthanc(tmp_path: Path) -> None:
    facts: Any = in_a_namespace(Path(__file__).with_name("orthanc_night.py"), tmp_path, timeout_s=1150)
    assert facts["killed"]["signal"] == -9
    first, second, third = facts["first"], facts["second"], facts["third"]
    # The broken study is told once, in one line and a summary; other modalities are not.
    assert (first["exit"], len(first["said"]), first["failures"]) == (3, 2, [["E_MISSING_SLICES", True]])
    for later in (second, third):
        assert (later["exit"], later["said"], later["failures"]) == (0, [], [["E_MISSING_SLICES", False]])
    whole = {"CT": 1, "DOC": 1, "OT": 1, "SEG": 1, "SR": 1}
    patients = {number: "pat-one" if number < 2 else "pat-two" for number in range(GOOD)}
    good = {f"{number} {patient}": whole for number, patient in patients.items()}
    others = {f"{BROKEN} pat-one": {"CT": 1}, "8 pat-one": {"MR": 1}, "9 pat-two": {"US": 1}}
    assert first["results"] == good | others | {f"{REFILED} pat-wrong": whole}
    assert second["results"] == third["results"] == good | others | {f"{REFILED} {RIGHT}": whole}
    assert first["instances"] == second["instances"] == third["instances"]
    # Nothing is done or sent twice.
    assert (second["counts"]["segment"]["done"], second["counts"]["push"]["main"]["pushed"]) == (1, 5)
    assert (third["counts"]["segment"]["done"], third["counts"]["push"]["main"]["pushed"]) == (0, 0)
    # Key images and PDFs come back element by element as they were sent: two pictures and a page for each study.
    assert facts["read_back"] == {"pdf": GOOD + 1, "sc": 2 * (GOOD + 1)}
