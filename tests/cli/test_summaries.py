"""Help on a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.cli.help_pages import COMMANDS, EXAMPLES, OPTIONS

ROOT: Any = typer.main.get_command(app)


def help_of(*names: str) -> str:
    return CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "80"}).stdout


@pytest.mark.parametrize("group", [(), ("pacs",), ("weights",), ("dataset",)])
def test_no_summary_is_cut_short_and_no_line_is_too_long(group: tuple[str, ...]) -> None:
    text = help_of(*group)
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROOT.commands))
def test_every_option_stands_whole_with_its_choices(name: str) -> None:
    words = {word.rstrip(",") for word in help_of(name).split()}
    for parameter in ROOT.commands[name].params:
        assert all(option in words for option in parameter.opts if option.startswith("--")), parameter.name
        if parameter.metavar and parameter.opts[0].startswith("-"):
            assert parameter.metavar in words


def test_commands_and_every_option_of_a_long_page_have_one_place() -> None:
    named = [name for names in COMMANDS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= set(ROOT.commands)
    for names in (("segment",), ("classify-us",), ("pacs", "pull")):
        assert "More:" not in help_of(*names)
    placed = [name for names in OPTIONS.values() for name in names]
    assert len(placed) == len(set(placed))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_commands_that_exist_and_fit_the_page(name: str) -> None:
    text = help_of(*name.split())
    assert max(map(len, text.split("Examples:")[1].splitlines())) <= 80
    for example, purpose in EXAMPLES[name]:
        assert purpose in text
        program, *words = example.split()
        assert program == "agseg"
        command = ROOT
        for part in name.split():
            command = command.commands[part]
            assert words.pop(0) == part
        command.make_context(name, words, resilient_parsing=False)


def test_defaults_are_said() -> None:
    text = " ".join(help_of("segment").split())
    for default in (
        "[default: agseg-out]",
        "default nifti",
        "[default: auto]",
        "default: an hour",
        "default: each organ's own",
    ):
        assert default in text


@pytest.mark.parametrize("words", [[], ["segment"], ["pacs"], ["pacs", "pull"]])
def test_help_is_a_word_too(words: list[str]) -> None:
    asked, usual = (CliRunner().invoke(app, given) for given in (["help", *words], [*words, "--help"]))
    assert (asked.exit_code, asked.stdout) == (0, usual.stdout)
    assert asked.stdout.startswith("Usage: ")
