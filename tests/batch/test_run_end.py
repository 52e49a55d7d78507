"""What a run leaves for other programs: metrics, the site's own command, the audit log, tables for Excel."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agseg.batch.audit import append, ended, first_broken_line
from agseg.batch.run_end import check_command, prometheus_text, run_command, summary, tell_webhook, write_metrics
from agseg.errors import Code, ExitCode, OutputError, UsageError
from agseg.io.exchange import Pace
from agseg.io.tables import TableStyle, table_text, write_volumes
from agseg.io.webhook import check_address, post
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus
from agseg.threads import THREADS, settle_threads
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


def test_the_command_is_not_told_how_agsegs_threads_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ours, users) = THREADS
    monkeypatch.setattr("agseg.threads._said", set())
    monkeypatch.delenv(ours, raising=False)
    monkeypatch.setenv(users, "7")
    settle_threads()
    said = tmp_path / "said"
    script = tmp_path / "hook.py"
    script.write_text(f"import os; open({str(said)!r}, 'w').write(repr([os.environ.get(n) for n in {tuple(THREADS)}]))")
    run_command(f"{sys.executable} {script}", REPORT, tmp_path / "run.json")
    assert said.read_text() == repr([None, "7"])
    assert os.environ[ours] == THREADS[ours]


@pytest.mark.parametrize("command", ["/nowhere/at/all", f"{sys.executable} -c 'raise SystemExit(5)'"])
def test_a_command_that_fails_is_said(command: str, tmp_path: Path) -> None:
    check_command(command)
    with pytest.raises(OutputError, match="--on-end failed"):
        run_command(command, REPORT, tmp_path / "run.json")


@pytest.mark.parametrize("command", ["", "  ", "mail 'unclosed"])
def test_a_command_that_is_none_is_refused_before_the_run(command: str) -> None:
    with pytest.raises(UsageError):
        check_command(command)


def test_a_webhook_is_sent_numbers_and_one_line_and_nothing_of_a_study() -> None:
    name = "Mueller^Anna/CT abdomen"
    studies = tuple(replace(study, input=f"{name} {study.input}", message=f"file {name}") for study in STUDIES)
    document = summary(replace(REPORT, studies=studies))
    assert document["text"] == "agseg: 1 done, 2 rejected (1 new); 1 to look at first; exit code 3"
    assert document["new_failures"] == {"E_MODALITY": 1}
    assert (document["exit_code"], document["review_studies"], document["counts"]["rejected"]) == (3, 1, 2)
    assert "Mueller" not in json.dumps(document)
    assert summary(replace(REPORT, studies=()))["text"] == "agseg: no study; 0 to look at first; exit code 3"


def test_a_webhook_gets_one_request_and_what_goes_wrong_is_said_without_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    with web_server() as (address, server):
        tell_webhook(f"{address}/hook/s3cret", REPORT)
        assert not caplog.records
        assert server.asked == [("POST", "/hook/s3cret", "application/json")]
        assert json.loads(server.bodies[0]) == summary(REPORT)
        for status, words in ((500, "answered with status 500"), (302, "answered with status 302")):
            caplog.clear()
            server.status = status
            tell_webhook(f"{address}/hook/s3cret", REPORT)
            assert words in caplog.text
            assert "s3cret" not in caplog.text
        assert len(server.asked) == 3
    caplog.clear()
    tell_webhook(f"{address}/hook/s3cret", REPORT)
    assert "the connection is refused" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_webhook_that_does_not_answer_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        quick = Pace(silence_s=0.2, grace_s=0.4, longest_s=1.0)
        assert post(f"http://127.0.0.1:{port}/", {}, pace=quick) == "127.0.0.1: no answer within 0.4 s"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hooks",
        "ftp://a/b",
        "http://hooks.example.org/x",
        "https://",
        "https://u:p@a.example/x",
        "https://[::1/x",
        "https://a:b/",
    ],
)
def test_an_address_that_nothing_is_posted_to_is_refused_before_the_run_without_its_path(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_address(f"{address}?s3cret" if address else "")
    assert "s3cret" not in caught.value.sentence()


@pytest.mark.parametrize(
    "address", ["https://hooks.example.org/x?t=1", "http://127.0.0.1:8080/", "http://localhost/", "http://[::1]/"]
)
def test_addresses_that_are_taken(address: str) -> None:
    check_address(address)


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.asked, self.bodies = 200, list[tuple[str, str, str]](), list[bytes]()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.command, self.path, self.headers["Content-Type"]))
        self.server.bodies.append(body)
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def web_server() -> Iterator[tuple[str, _Server]]:
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()


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


@pytest.mark.slow
def test_a_run_writes_its_table_as_asked(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "one.nii.gz")
    run(tmp_path / "in", tmp_path / "out", table_style=TableStyle.EXCEL_SEMICOLON)
    assert (tmp_path / "out" / "volumes.csv").read_bytes().startswith(b'\xef\xbb\xbf"study";')
