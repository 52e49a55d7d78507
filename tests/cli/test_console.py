"""What is said arrives, whatever the terminal can spell."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from agseg.cli import console

RUN = "import sys; sys.argv = ['agseg']; from agseg.cli.app import main; main()"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_name_can_be_said_in_every_encoding(monkeypatch, encoding):
    name = "scan één 中文 \udcff"[: None if encoding != "utf-8" else -1]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    console.speak_any_locale()
    console.note(name)
    console.document({"input": name})
    streams[0].flush()
    assert json.loads(streams[0].buffer.getvalue().decode(encoding)) == {"input": name}


@pytest.mark.parametrize(("asked", "heard"), [({}, False), ({"quiet": True}, False), ({"verbose": True}, True)])
def test_a_library_is_no_louder_than_agseg(capsys, asked, heard):
    console.setup_logging(**asked)
    library = logging.getLogger("a_library")
    library.setLevel(logging.INFO)
    library.info("news")
    assert ("news" in capsys.readouterr().err) == heard


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["weights", "list"], 0),
        (["weights", "list", "--json"], 0),
        (["weights", "show", "nobody"], 2),
        (["nonsense"], 2),
    ],
)
@pytest.mark.parametrize("deaf", [("stdout",), ("stdout", "stderr")])
def test_a_reader_that_has_left_changes_neither_the_exit_code_nor_what_is_said(arguments, code, deaf):
    read, write = os.pipe()
    os.close(read)
    streams = {name: write if name in deaf else subprocess.PIPE for name in ("stdout", "stderr")}
    try:
        done = subprocess.run([sys.executable, "-m", "agseg", *arguments], text=True, **streams)
    finally:
        os.close(write)
    assert done.returncode == code
    if code == 0:
        assert not done.stderr
    elif done.stderr is not None:
        assert "roken" not in done.stderr
        assert done.stderr.strip()


def said_with(redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with its standard streams as a shell leads them."""
    command = f'exec "$0" -m agseg "$@" {redirections}'
    return subprocess.run(["sh", "-c", command, sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["weights", "list"], 0), (["weights", "list", "--json"], 0), (["weights", "show", "nobody"], 2)],
)
def test_a_closed_stream_changes_neither_the_exit_code_nor_what_the_other_says(arguments, code, redirections):
    done, usual = said_with(redirections, *arguments), said_with("", *arguments)
    assert (done.returncode, usual.returncode) == (code, code)
    assert done.stdout == ("" if ">&-" in redirections.replace("2>&-", "") else usual.stdout)
    assert done.stderr == ("" if "2>&-" in redirections else usual.stderr)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 8), (["weights", "list"], 8), (["weights", "list", "--json"], 8), (["nonsense"], 2)],
)
def test_a_full_stdout_is_8_and_a_sentence_and_a_full_stderr_is_nothing(arguments, code):
    done = said_with(">/dev/full", *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert ("standard output: the disk is full" in done.stderr) == (code == 8)
    assert said_with(">/dev/full 2>&1", *arguments).returncode == code
    assert said_with("2>/dev/full", *arguments).returncode == said_with("", *arguments).returncode


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "said"),
    [
        (0, 10, 60, ""),
        (3, None, 60, ""),
        (1, 10, 60, "60 an hour, 9 min left"),
        (5, 300, 600, "30 an hour, 9 h 50 min left"),
        (9, 10, 90, "360 an hour, less than a minute left"),
        (10, 10, 100, "360 an hour, less than a minute left"),
    ],
)
def test_progress_says_its_pace_and_the_time_left(done, total, elapsed_s, said):
    assert console.pace_of(done, total, elapsed_s=elapsed_s) == said


def test_the_version_says_what_a_report_needs():
    done = subprocess.run([sys.executable, "-m", "agseg", "-V"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"agseg \d+\.\d+\.\d+", lines[0])
    assert [line.split()[0] for line in lines[1:]] == ["commit", "Python", "weights"]
    assert f"torch {version('torch')}" in lines[2]
    assert re.search(r"attention-unet-abdomen [0-9a-f]{12}", lines[3])


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell):
    environment = os.environ | {"_AGSEG_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=environment)
    assert "agseg" in done.stdout
    assert done.stderr == ""


def test_commands_and_options_complete():
    for words, number, found in (("agseg seg", 1, {"segment"}), ("agseg segment --out", 2, {"--output", "--output-type"})):
        asked = {"_AGSEG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=os.environ | asked)
        assert set(done.stdout.split()) == found
