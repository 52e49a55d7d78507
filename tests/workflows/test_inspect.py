"""agseg inspect: what it says, in which shape, and the exit code that scripts rely on."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import Code, ExitCode
from agseg.grid import Grid
from agseg.volume import Volume
from agseg.workflows.inspect import _looked_at as looked_at
from agseg.workflows.inspect import inspect, sample_trilinear
from tests import phantoms

SHAPE, SPACING = (14, 12, 6), (3.0, 4.0, 5.0)


@pytest.fixture
def ct():
    affine = phantoms.dicom_affine("oblique", SHAPE, SPACING)
    return phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine


class TestExitCode:
    def test_all(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path, *ct)
        assert inspect([tmp_path]).exit_code is ExitCode.OK

    def test_some(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path / "a", *ct)
        phantoms.write_dicom(tmp_path / "b", *ct, modality="MR")
        assert inspect([tmp_path / "a", tmp_path / "b"]).exit_code is ExitCode.SOME_NOT_DONE

    def test_none(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path / "b", *ct, modality="MR")
        assert inspect([tmp_path]).exit_code is ExitCode.NONE_DONE

    def test_no_study(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        found = inspect([tmp_path])
        assert found.exit_code is ExitCode.NO_STUDY
        assert {str(skip.reason) for _, skip in found.skipped} == {"not_an_image", "E_NO_IMAGE_SERIES"}


def test_samples_are_exact_on_a_linear_phantom(tmp_path, ct, rng):
    hu, affine = ct
    phantoms.write_dicom(tmp_path / "dicom", hu, affine)
    phantoms.write_nifti(tmp_path / "x.nii.gz", hu, affine)
    index = rng.uniform(0, np.array(SHAPE) - 1, (20, 3))
    ras = index @ affine[:3, :3].T + affine[:3, 3]
    points = [tuple(point) for point in ras * (-1, -1, 1)]
    for study in inspect([tmp_path], at_lps_mm=points).studies:
        values = [sample.value for sample in study.samples]
        assert np.allclose(values, phantoms.linear_hu(ras), atol=0.51)


def test_samples_at_the_border_and_outside():
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4, order="F"), Grid((2, 3, 4), np.eye(4)))
    assert sample_trilinear(volume, (0, 0, 0)) == 0
    assert sample_trilinear(volume, (-1, -2, 3)) == 23
    assert sample_trilinear(volume, (-0.5, 0, 0)) == 0.5
    assert sample_trilinear(volume, (0.01, 0, 0)) is None
    assert sample_trilinear(volume, (-1, -2, 3.01)) is None


def breaks(study, points, *, note):
    """Stands in for the reading in the child: the first study raises, the second ends the process."""
    if study.id == "a":
        raise ZeroDivisionError(phantoms.CANARIES[0])
    if study.id == "b":
        os.abort()
    return looked_at(study, points, note=note)


@pytest.mark.slow
def test_one_study_that_breaks_the_reader_does_not_hide_the_others(tmp_path, ct, monkeypatch):
    phantoms.write_dicom(tmp_path / "a", *ct)
    phantoms.write_dicom(tmp_path / "b", *ct, series=4)
    phantoms.write_nifti(tmp_path / "c.nii.gz", *ct)
    monkeypatch.setattr("agseg.workflows.inspect._looked_at", breaks)
    first, second, third = inspect([tmp_path]).studies
    assert first.rejected.code is Code.INTERNAL
    assert phantoms.CANARIES[0] not in first.rejected.message
    assert second.rejected.code is Code.CRASHED
    assert third.is_ok


class TestCommand:
    def test_json(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path / "ct", *ct)
        phantoms.write_nifti(tmp_path / "short.nii.gz", ct[0][:, :, :2], ct[1])
        result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json", "--at-lps=0,0,0", "--at_lps=900,0,0"])
        assert result.exit_code == 3
        document = json.loads(result.stdout)
        assert set(document) == {"schema", "studies", "skipped_files", "exit_code"}
        good, bad = document["studies"]
        expected = {
            "input", "status", "code", "message", "warnings", "kind", "modality", "shape", "spacing_mm", "voxel_volume_mm3",
            "axis_codes", "affine_ras", "min", "max", "samples",
        }  # fmt: skip
        assert expected <= set(good)
        assert set(good) == set(bad)
        assert (good["input"], good["status"], good["code"], good["kind"]) == ("ct", "ok", None, "dicom")
        assert good["samples"][0]["lps_mm"] == [0, 0, 0]
        assert good["samples"][0]["value"] == pytest.approx(50, abs=0.5)
        assert good["samples"][1]["value"] is None
        assert good["voxel_volume_mm3"] == pytest.approx(60)
        assert (bad["status"], bad["code"], bad["shape"]) == ("rejected", "E_TOO_FEW_SLICES", None)

    def test_people(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path / "ct", *ct)
        (tmp_path / "[red]notes.txt").write_text("hello")
        result = CliRunner().invoke(app, ["inspect", str(tmp_path), "-v"])
        assert result.exit_code == 0
        assert "[red]notes.txt" in result.output
        assert not any(canary in result.output for canary in phantoms.CANARIES)

    def test_quiet_says_nothing(self, tmp_path, ct):
        phantoms.write_dicom(tmp_path / "ct", *ct)
        assert CliRunner().invoke(app, ["inspect", str(tmp_path), "-q"]).output == ""

    def test_a_point_needs_three_numbers(self, tmp_path):
        result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--at-lps=1,2"])
        assert result.exception is not None
        assert result.exception.exit_code is ExitCode.USAGE

    def test_names_that_are_not_text_can_be_printed(self, tmp_path, ct):
        phantoms.write_nifti(tmp_path / "x.nii.gz", *ct)
        (tmp_path / "x.nii.gz").rename(tmp_path / b"caf\xe9;$(rm).nii.gz".decode("utf-8", "surrogateescape"))
        result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
        assert json.loads(result.stdout)["studies"][0]["input"] == "caf\\xe9;$(rm)"
