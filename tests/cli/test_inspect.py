"""``agseg inspect``: what a person reads on a narrow terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agseg.cli import console
from agseg.cli.app import app
from agseg.errors import Code
from tests import phantoms

SHAPE, SPACING_MM = (20, 18, 12), (6.0, 6.0, 8.0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns shows."""
    shown = io.StringIO()
    monkeypatch.setattr(console, "stdout", lambda: Console(file=shown, width=80, highlight=False))
    return shown


def write_studies(folder: Path) -> None:
    """A good one below a long name, and one with a missing slice."""
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING_MM)
    voxels = phantoms.sampled(phantoms.body_hu, SHAPE, affine)
    phantoms.write_dicom(folder / "gap", voxels, affine)[5].unlink()
    lpi = phantoms.coded_affine("LPI", SHAPE, SPACING_MM)
    deep = folder / "a_folder_with_a_name_that_takes_all_the_room"
    phantoms.write_nifti(deep / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, lpi), lpi)


def test_a_narrow_terminal_breaks_no_code_and_says_no_reason_twice(terminal: io.StringIO, tmp_path: Path) -> None:
    write_studies(tmp_path)
    (tmp_path / "[red]notes.txt").write_text("not a study")
    CliRunner().invoke(app, ["inspect", str(tmp_path)])
    text = terminal.getvalue()
    words = {word.rstrip(":") for word in text.split()}
    assert {str(Code.MISSING_SLICES), str(Code.MODALITY_ASSUMED), "20x18x12", "rejected", "modality"} <= words
    assert " ".join(text.split()).count("carries") == 1
    assert max(map(len, text.splitlines())) <= 80


def test_every_code_has_its_room(terminal: io.StringIO) -> None:
    rows = [("x" * 40, "rejected", "CT", "512x512x1200\n0.977x0.977x0.625 mm", f"{code}: why") for code in Code]
    console.print_rows("Studies", ("study", "status", "modality", "grid", "why"), rows, whole_names=False)
    words = {word.rstrip(":") for word in terminal.getvalue().split()}
    assert {str(code) for code in Code} <= words


def test_a_folder_without_a_study_is_no_file(terminal: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(app, ["inspect", str(tmp_path / "empty")]).exit_code == 5
    assert "Files" not in terminal.getvalue()
    assert "no CT series below this folder" in terminal.getvalue().replace("\n", " ")
