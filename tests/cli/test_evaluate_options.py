"""An option of `agseg evaluate` is obeyed or refused, never ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import UsageError


def refusal(*words: str) -> str:
    done = CliRunner().invoke(app, ["evaluate", *words])
    assert isinstance(done.exception, UsageError)
    return str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        ("--masks",), ("--mirror",), ("--last",), ("--protocol", "aft"), ("--data", "x"), ("--split", "x"), ("--fold", "0"),
        ("--largest", "liver"), ("--precision", "fp32"), ("--device", "cpu"), ("--run", "x"), ("--pool", "x"),
    ],
)  # fmt: skip
def test_masks_are_scored_as_they_are(tmp_path: Path, option: tuple[str, ...]) -> None:
    said = refusal(str(tmp_path), str(tmp_path), *option, "-o", str(tmp_path / "out"))
    assert f"{option[0]} says nothing about two folders of masks" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--case", "a"), ("--tolerance", "3"), ("--masks",)])
def test_tables_of_planes_have_no_masks(tmp_path: Path, option: tuple[str, ...]) -> None:
    table = tmp_path / "frames.csv"
    table.write_text("frame,label\n")
    assert "two tables of planes" in refusal(str(table), str(table), *option)


@pytest.mark.parametrize(
    ("words", "option"), [(("--run", "x", "--case", "a"), "--case"), (("--pool", "x", "--data", "y"), "--data")]
)
def test_runs_have_a_test_side_and_folds_are_scored_already(words: tuple[str, ...], option: str) -> None:
    assert f"{option} says nothing about the evaluation of {words[0]}" in refusal(*words)


def test_a_sites_default_for_every_command_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("device: cpu\n")
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "site.yaml"), "evaluate", str(tmp_path), str(tmp_path)])
    assert "no reference mask here" in str(done.exception)
