"""What docs/pacs.md has a hospital paste is executed: the site's file, the unit, the cron line, the shell steps."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from agseg.cli.app import app
from agseg.workflows.site import load_site
from tests.promises.conftest import ROOT

PAGE = (ROOT / "docs" / "pacs.md").read_text()
BLOCKS = [(kind, text) for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]


def block(kind: str, word: str) -> str:
    """The page's one block of this kind with this word."""
    found = [text for k, text in BLOCKS if k == kind and word in text]
    assert len(found) == 1, (kind, word, len(found))
    return found[0]


@pytest.fixture
def agseg(tmp_path: Path) -> Path:
    """An ``agseg`` that notes how it is called and ends as it is told."""
    path = tmp_path / "agseg"
    path.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\ncase "$1 $2" in "pacs pull") exit $PULL ;; *) exit $REST ;; esac\n')
    path.chmod(0o755)
    return path


def run(script: str, agseg: Path, *, pull: int = 0, rest: int = 0) -> tuple[int, list[str]]:
    calls = agseg.parent / "calls"
    calls.unlink(missing_ok=True)
    environment = {"PATH": f"{agseg.parent}:/usr/bin:/bin", "CALLS": str(calls), "PULL": str(pull), "REST": str(rest)}
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


def test_the_sites_file_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(block("yaml", "since: 36h"))
    site = load_site(tmp_path / "site.yaml")
    assert list(site.archives) == ["main", "research"]
    (tmp_path / "site.yaml").write_text(block("yaml", "allow:"))
    listen = load_site(tmp_path / "site.yaml").listen
    assert listen is not None
    assert (listen.port, listen.send_to) == (11112, "main")


def test_the_units_command_exists_and_names_its_program_in_full(agseg: Path) -> None:
    unit = block("ini", "agseg night")
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command is not None
    program, *words = shlex.split(command[1])
    assert Path(program).is_absolute()
    # systemd takes the words as they are; the documented codes are the ones of a night that is no failure.
    code, calls = run(shlex.join(["agseg", *words]), agseg)
    assert (code, calls) == (0, ["night --config /etc/agseg/site.yaml"])
    assert "SuccessExitStatus=6 9" in unit


def test_the_cron_line_has_a_user_an_absolute_program_and_no_percent_sign(agseg: Path) -> None:
    line = block("", "MAILTO").splitlines()[1]
    (
        minute,
        hour,
        *_,
    ) = line.split()
    assert (minute, hour) == ("30", "23")
    command = line.split("agseg  ", 1)[1]
    assert "%" not in command
    code, calls = run(command.replace("/opt/agseg/bin/agseg", "agseg"), agseg)
    assert (code, calls) == (0, ["night --config /etc/agseg/site.yaml"])


@pytest.mark.parametrize(("pull", "steps"), [(0, 3), (3, 3), (5, 3), (4, 1), (8, 1)])
def test_by_hand_a_quiet_day_and_a_lost_series_do_not_keep_the_rest_from_being_done(agseg: Path, pull: int, steps: int) -> None:
    code, calls = run(block("sh", "--since 36h"), agseg, pull=pull)
    assert (len(calls), code) == (steps, 0 if steps == 3 else 1)
    if steps == 3:
        assert [call.split()[0] for call in calls] == ["pacs", "segment", "pacs"]


def test_every_cron_line_names_user_program_and_home_as_the_units_do() -> None:
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("hospital.md", "pacs.md", "install.md"))
    lines = re.findall(r"^(?:\d+ ){2}\* \* \*  (.*)$", pages, re.MULTILINE)
    assert len(lines) == 3
    (home,) = set(re.findall(r"^Environment=(AGSEG_HOME=\S+)$", pages, re.MULTILINE))
    for line in lines:
        assert line.startswith(f"agseg  {home} /opt/agseg/bin/agseg ")
        assert "%" not in line
        into = re.findall(r">> (\S+)/[^/ ]+", line)
        assert all(re.search(rf"install -d .*{re.escape(folder)}\b", pages) for folder in into)


def test_every_unit_starts_a_command_that_exists() -> None:
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("hospital.md", "pacs.md"))
    started = [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", pages, re.MULTILINE)]
    assert sorted(words[1] for words in started) == ["listen", "night", "segment"]
    commands = getattr(get_command(app), "commands", {})
    for program, command, *words in started:
        assert program == "/opt/agseg/bin/agseg"
        options = {option for parameter in commands[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options
