"""Help on a terminal of 80 columns."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from agseg.cli.app import app

ROOT = typer.main.get_command(app)


def help_of(*names: str) -> str:
    return CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "80"}).stdout


@pytest.mark.parametrize("group", [(), ("pacs",), ("weights",), ("dataset",)])
def test_no_summary_is_cut_short_and_no_line_is_too_long(group: tuple[str, ...]) -> None:
    text = help_of(*group)
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", sorted(ROOT.commands))
def test_every_option_stands_whole_with_its_choices(name: str) -> None:
    words = {word.rstrip(",") for word in help_of(name).split()}
    for parameter in ROOT.commands[name].params:
        assert all(option in words for option in parameter.opts if option.startswith("--")), parameter.name
        if parameter.metavar and parameter.opts[0].startswith("-"):
            assert parameter.metavar in words
