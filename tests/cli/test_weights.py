"""``agseg weights``: what a person reads."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agseg.cli import console
from agseg.cli.app import app


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns shows."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "stdout", lambda: Console(file=shown, width=80, highlight=False))
    return shown


def test_a_narrow_terminal_breaks_no_word_of_the_list(terminal: io.StringIO) -> None:
    assert CliRunner().invoke(app, ["weights", "list"]).exit_code == 0
    words = {word.rstrip(",") for word in terminal.getvalue().split()}
    rows = json.loads(CliRunner().invoke(app, ["weights", "list", "--json"]).stdout)
    assert {row["id"] for row in rows} <= words
    assert {organ for row in rows for organ in row["default_for"]} <= words


def test_an_entry_shows_each_files_own_digest_and_scores_as_words(terminal: io.StringIO) -> None:
    content = json.loads(CliRunner().invoke(app, ["weights", "show", "attention-unet-abdomen", "--json"]).stdout)
    assert CliRunner().invoke(app, ["weights", "show", "attention-unet-abdomen"]).exit_code == 0
    words = terminal.getvalue().split()
    assert content["files"][0]["sha256"] in words
    assert content["sha256"] in words
    assert "{'" not in terminal.getvalue().partition("scores")[2]
    for scan in content["scores"]["left_out_dice"]:
        assert f"{scan}:" in words
