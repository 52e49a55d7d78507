"""docs/promises.md and docs/hospital.md say what is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup

from agseg.cli.app import app
from agseg.errors import Code, ExitCode
from tests.promises.conftest import ROOT

PAGE = ROOT / "docs" / "promises.md"
COUNT = 49
_LINK = re.compile(r"\[`(test_\w+)`\]\(https://github\.com/agseg/agseg/blob/main/(tests/[\w/]+\.py)\)")


def promised() -> dict[int, list[tuple[str, str]]]:
    """Per promise the tests that the page names: file and function."""
    rows = re.findall(r"^\| (\d+) \|.*\|$", PAGE.read_text(), re.MULTILINE)
    lines = {int(line.split("|")[1]): line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)}
    assert len(rows) == len(lines), "a promise stands on the page twice"
    return {number: [(path, name) for name, path in _LINK.findall(line)] for number, line in lines.items()}


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def holds(name: str, number: int) -> bool:
    """Whether a test is named after the promise: test_promise_7_..., test_promises_7_8_...."""
    match = re.match(r"test_promises?_((?:\d+_)+)", name)
    return match is not None and str(number) in match.group(1).strip("_").split("_")


def test_every_promise_has_a_test_named_after_it_and_every_named_test_exists() -> None:
    page = promised()
    assert sorted(page) == list(range(1, COUNT + 1))
    for number, tests in page.items():
        assert any(holds(name, number) for _, name in tests), f"promise {number} has no test named after it"
        for path, name in tests:
            assert (ROOT / path).is_file(), path
            assert name in functions(ROOT / path), f"{path} has no {name}"


def test_every_test_named_after_a_promise_stands_on_the_page() -> None:
    page = promised()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in functions(path):
            numbers = [number for number in page if holds(name, number)]
            for number in numbers:
                assert (path.relative_to(ROOT).as_posix(), name) in page[number], f"{name} is missing at promise {number}"


def test_the_hospital_guide_has_every_exit_code() -> None:
    text = (ROOT / "docs" / "hospital.md").read_text()
    said = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in cell.split(",")}
    assert said == {int(code) for code in ExitCode}


def test_the_hospital_guide_explains_every_reason_code() -> None:
    text = (ROOT / "docs" / "hospital.md").read_text()
    assert not [str(code) for code in Code if f"`{code}`" not in text]


def test_every_command_line_in_the_hospital_guide_exists() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    text = (ROOT / "docs" / "hospital.md").read_text()
    lines = [part for part in re.findall(r"(?:^|[ `/])agseg ((?:[a-z]+ )+[^`\n]*)", text, re.MULTILINE) if " -" in part]
    seen = 0
    for line in lines:
        words = line.split()
        command: object = root
        while isinstance(command, TyperGroup) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if not isinstance(command, TyperCommand):
            continue
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known, line
        seen += 1
    assert seen >= 8
