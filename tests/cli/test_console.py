"""What is said arrives, whatever the terminal can spell."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from agseg.cli import console


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
