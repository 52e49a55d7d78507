"""The main job, end to end: real processes, real files, a network whose answer is known."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests import phantoms
from tests.tiny_weights import write_site_manifest

SHAPE, SPACING = (44, 36, 24), (3.0, 3.0, 3.5)


def agseg(*arguments, cwd=None, **environment):
    """Run the command line as a stranger does."""
    return subprocess.run(
        [sys.executable, "-m", "agseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run over a folder with two good studies and a bad one."""
    root = tmp_path_factory.mktemp("segment")
    manifest = write_site_manifest(root / "site")
    studies = root / "studies"
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    phantoms.write_dicom(studies / "axial", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    lpi = phantoms.coded_affine("LPI", SHAPE, SPACING)
    phantoms.write_nifti(studies / "deep" / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, lpi), lpi)
    gap = phantoms.write_dicom(studies / "gap", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine, series=7)
    gap[9].unlink()
    (studies / "notes.txt").write_text("not a study")
    out = root / "out"
    done = agseg(
        "segment",
        studies,
        "-o",
        out,
        "--manifest",
        manifest,
        "--weights",
        "tiny",
        "--json",
        "--precision",
        "fp32",
        AGSEG_HOME=str(root / "home"),
    )
    return root, out, done


@pytest.mark.slow
def test_a_mixed_folder_ends_with_one_record_per_study(run):
    _, out, done = run
    assert done.returncode == 3, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((out / "run.json").read_text())
    assert {s["input"]: s["status"] for s in record["studies"]} == {
        "axial": "done",
        "deep/scan": "done",
        "gap": "rejected",
    }
    assert record["counts"] == {"done": 2, "skipped": 0, "rejected": 1, "failed": 0, "deferred": 0}
    assert record["files"]["found"] == record["files"]["used"] + sum(record["files"]["skipped"].values())
    assert next(s["code"] for s in record["studies"] if s["input"] == "gap") == "E_MISSING_SLICES"


@pytest.mark.slow
def test_masks_lie_on_the_source_grid_for_a_second_reader(run):
    root, out, _ = run
    source = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(root / "studies" / "axial")))
    mask = sitk.ReadImage(str(out / "axial" / "pancreas.nii.gz"))
    assert mask.GetSize() == source.GetSize()
    np.testing.assert_allclose(mask.GetOrigin(), source.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(mask.GetDirection(), source.GetDirection(), atol=1e-4)
    values = sitk.GetArrayFromImage(source)[sitk.GetArrayFromImage(mask) > 0]
    assert np.percentile(values, 10) > 60
    assert np.percentile(values, 90) < 160


def test_dicom_and_nifti_of_one_patient_agree_in_space_and_ml(run):
    _, out, done = run
    volumes = {}
    for study in json.loads(done.stdout)["studies"][:2]:
        image = nib.load(out / study["output"] / "kidney_left.nii.gz")
        mask = np.asarray(image.dataobj) > 0
        organ = next(o for o in study["organs"] if o["name"] == "kidney_left")
        assert organ["voxels"] == mask.sum()
        assert organ["volume_ml"] == pytest.approx(mask.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000)
        volumes[study["input"]] = organ["volume_ml"]
    assert volumes["axial"] == pytest.approx(volumes["deep/scan"], rel=0.005)
    statistics = json.loads((out / "axial" / "statistics.json").read_text())
    assert statistics["kidney_left"]["volume"] == pytest.approx(volumes["axial"] * 1000, rel=1e-4)


def test_volumes_csv_has_a_row_per_study_and_organ(run):
    _, out, _ = run
    rows = list(csv.DictReader((out / "volumes.csv").read_text().splitlines()))
    assert len([row for row in rows if row.get("organ")]) >= 4


def test_the_stages_of_a_record_add_up_to_its_total(run):
    _, _, done = run
    for study in json.loads(done.stdout)["studies"][:2]:
        seconds = dict(study["seconds"])
        total = seconds.pop("total")
        assert set(seconds) == {"read", "prepare", "predict", "restore", "measure", "write"}
        # Each of them is rounded to a millisecond.
        assert sum(seconds.values()) == pytest.approx(total, rel=0.05, abs=0.004)


def test_everything_is_private_to_its_owner(run):
    _, out, _ = run
    for path in out.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_a_second_run_does_nothing_again_and_overwrite_gives_the_same_bytes(run):
    root, out, _ = run
    site = ("--manifest", root / "site" / "site.yaml", "--weights", "tiny", "--json", "--precision", "fp32")
    before = (out / "axial" / "pancreas.nii.gz").read_bytes()
    again = agseg("segment", root / "studies", "-o", out, *site, AGSEG_HOME=str(root / "home"))
    assert json.loads(again.stdout)["counts"]["skipped"] == 2
    assert again.returncode == 3  # the bad study is still there
    anew = agseg("segment", root / "studies" / "axial", "-o", root / "out2", *site, AGSEG_HOME=str(root / "home"))
    assert anew.returncode == 0, anew.stderr
    assert (root / "out2" / "axial" / "pancreas.nii.gz").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("was", "corrected"),
    [
        ("window_hu: [-200.0, 300.0]", "window_hu: [-150.0, 300.0]"),
        ("{1: pancreas, 2: kidney_left}", "{1: kidney_left, 2: pancreas}"),
        ("    default_for", "    cleanup: {pancreas: largest_component}\n    default_for"),
    ],
)
def test_a_corrected_entry_with_the_same_weights_file_is_done_again(run, was, corrected):
    root, out, _ = run
    manifest = root / "site" / "corrected.yaml"
    plan = ("segment", root / "studies", "-o", out, "--weights", "tiny", "--organ", "pancreas", "--organ", "kidney_left")
    entry = (root / "site" / "site.yaml").read_text()
    assert was in entry
    counts = []
    for text in (entry, entry.replace(was, corrected), entry.replace("set by hand", "set by another hand")):
        manifest.write_text(text)
        done = agseg(*plan, "--manifest", manifest, "--precision", "fp32", "--json", "--dry-run", AGSEG_HOME=str(root / "home"))
        counts.append(json.loads(done.stdout)["counts"]["skipped"])
    assert counts == [2, 0, 2]


def test_multilabel_and_single_organ(run, tmp_path):
    root, _, _ = run
    done = agseg(
        "segment", root / "studies" / "deep" / "scan.nii.gz", "-o", tmp_path / "out", "--ml", "--no-preview", "--organ",
        "kidney_left", "--manifest", root / "site" / "site.yaml", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)["studies"][0]
    labels = np.asarray(nib.load(tmp_path / "out" / study["output"] / "labels.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 2}
    assert "preview.png" not in study["files"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--organ", "duodenum"), "no default weights for duodenum"),
        (("--organ", "pancras"), "Did you mean pancreas?"),
        (("--organ", "pancras", "--weights", "tiny"), "Did you mean pancreas?"),
        (("--organ", "pancreas", "--prune-depth", "2"), "cannot be pruned"),
        (("--device", "gpu:7"), "Use --device cpu or auto."),
        (("--output-type", "mesh"), "invalid value for"),
        (("--weights", "nobody"), "no weights have this id"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_what_to_do(run, tmp_path, arguments, words):
    root, _, _ = run
    done = agseg("segment", root / "studies", "-o", tmp_path / "out", "--manifest", root / "site" / "site.yaml", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_streams_that_lead_nowhere_cost_no_result(run, tmp_path):
    root, _, _ = run
    wanted = ("segment", root / "studies" / "deep", "-o", tmp_path / "out", "--manifest", root / "site" / "site.yaml", "--json")
    command = ["sh", "-c", 'exec "$0" -m agseg "$@" >/dev/full 2>&-', sys.executable, *map(str, wanted)]
    assert subprocess.run(command, timeout=300, check=False).returncode == 8
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (record["exit_code"], record["counts"]["done"]) == (0, 1)


@pytest.mark.slow
def test_no_study_exits_5(run, tmp_path):
    root, _, _ = run
    (tmp_path / "empty").mkdir()
    done = agseg("segment", tmp_path / "empty", "-o", tmp_path / "out", "--manifest", root / "site" / "site.yaml")
    assert done.returncode == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("junk",),
            5,
            "no study found in junk: expected DICOM series, NIfTI, NRRD or MHA, found 1 other file (1 not_an_image)",
        ),
        (("junk", "-q"), 5, ""),
        (("studies", "--num-parts", "50", "--part-id", "49"), 0, ""),
        (("studies", "--deadline", "0.000001"), 9, "the deadline was reached: "),
        (("studies", "--deadline", "0.000001", "-q"), 9, ""),
    ],
)
def test_a_run_that_did_nothing_says_why_without_a_terminal(run, tmp_path, arguments, code, said):
    root, _, _ = run
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "notes.txt").write_text("not a study")
    if not (tmp_path / "studies").exists():
        (tmp_path / "studies").symlink_to(root / "studies")
    done = agseg("segment", *arguments, "-o", tmp_path / "out", "--manifest", root / "site" / "site.yaml", cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1:] == ([line for line in done.stderr.splitlines() if said in line] if said else [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-d", "foo"), "unknown device: found foo"),
        (("-d", "gpu:77"), "GPU"),
        (("--deadline", "0"), "--deadline must be more than 0: found 0"),
        (("--study-timeout", "nan"), "--study-timeout must be more than 0: found nan"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_looked_for(tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    done = agseg("segment", tmp_path / "empty", "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_does_not_import_torch():
    code = "import sys; import agseg.cli.app; assert 'torch' not in sys.modules; assert 'rich.table' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path("/")).returncode == 0


@pytest.mark.slow
def test_a_mask_that_no_dicom_object_can_hold_is_not_lost_and_said(tmp_path):
    pytest.importorskip("highdicom")
    manifest = write_site_manifest(tmp_path / "site")
    affine = phantoms.coded_affine("RAS", SHAPE, SPACING)
    phantoms.write_nifti(tmp_path / "in" / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    done = agseg(
        "segment", tmp_path / "in", "-o", tmp_path / "out", "--manifest", manifest, "--weights", "tiny",
        "--output-type", "dicom-seg", AGSEG_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 0
    assert "W_MISSING_UIDS" in done.stderr
    assert nib.load(tmp_path / "out" / "scan" / "pancreas.nii.gz").get_fdata().any()
