"""``agseg weights``: what a person reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agseg.cli import console
from agseg.cli.app import app
from agseg.errors import WeightsError
from tests.tiny_weights import write_site_manifest


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


def test_a_foreign_file_keeps_no_weights_from_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGSEG_HOME", str(tmp_path / "home"))
    site = write_site_manifest(tmp_path / "site")
    weights = next((tmp_path / "site").glob("*.safetensors"))
    files = []
    for name in ("LICENSE", "README.md"):
        files.append(tmp_path / name)
        files[-1].write_text("words")
    words = ["weights", "import", "--manifest", str(site), str(files[0]), str(weights), str(files[1])]
    outcome = CliRunner().invoke(app, words)
    assert isinstance(outcome.exception, WeightsError)
    assert f"{weights.name} imported into tiny" in outcome.stderr
    assert "LICENSE" in outcome.stderr
    assert "README.md" in str(outcome.exception)
