"""A run with weights for MR: it takes MR, measures no HU, and what it writes says so; weights for CT refuse MR as before."""

from __future__ import annotations

import csv
import json

import pydicom
import pytest

from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest
from agseg.workflows.inspect import inspect, installed_weights
from tests import phantoms
from tests.tiny_weights import write_site_manifest
from tests.workflows.test_segment import agseg

pytestmark = pytest.mark.slow

SHAPE, SPACING = (44, 36, 24), (3.0, 3.0, 3.5)
OUTPUTS = [word for kind in ("nifti", "dicom-seg", "dicom-sr", "rtstruct") for word in ("--output-type", kind)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights for MR and for CT, and a series and a file of each; a signal is the phantom's HU and 2000."""
    root = tmp_path_factory.mktemp("mr")
    manifest = write_site_manifest(root / "site")
    text = manifest.read_text()
    entry = text[text.index("  tiny:") :].replace("tiny:", "tiny-mr:", 1).replace("modality: CT", "modality: MR")
    entry = entry.replace("window_hu: [-200.0, 300.0]", "window_hu: [1800.0, 2300.0]")
    manifest.write_text(text + entry)
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    hu = phantoms.sampled(phantoms.body_hu, SHAPE, affine)

    def as_stored(dataset, _k):
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType

    phantoms.write_dicom(root / "studies/mr/series", hu, affine, modality="MR", change=as_stored)
    phantoms.write_dicom(root / "studies/ct/series", hu, affine, series=5)
    phantoms.write_nifti(root / "studies/files/signal.nii.gz", (hu.astype("f4") + 2000), affine)
    phantoms.write_nifti(root / "studies/files/hu.nii.gz", hu, affine)
    return root, manifest


def segment(root, manifest, out, *arguments):
    done = agseg(
        "segment", root / "studies", "-o", out, "--manifest", manifest, "--precision", "fp32", *arguments,
        AGSEG_HOME=str(root / "home"),
    )  # fmt: skip
    records = {record["input"]: record for record in json.loads((out / "run.json").read_text())["studies"]}
    return done, records


def test_a_run_takes_the_modality_of_its_weights(place, tmp_path):
    root, manifest = place
    done, records = segment(root, manifest, tmp_path, "--weights", "tiny-mr", *OUTPUTS)
    assert done.returncode == 3, done.stderr
    assert {name: (record["status"], record["code"]) for name, record in records.items()} == {
        "mr/series": ("done", None), "files/signal": ("done", None),
        "ct/series": ("rejected", "E_MODALITY"), "files/hu": ("rejected", "E_MODALITY"),
    }  # fmt: skip
    organs = {name: {organ["name"]: organ for organ in records[name]["organs"]} for name in ("mr/series", "files/signal")}
    assert records["mr/series"]["modality"] == "MR"
    assert organs["mr/series"]["pancreas"]["volume_ml"] > 0
    assert organs["mr/series"]["pancreas"] == organs["files/signal"]["pancreas"]
    assert all(organ["mean_hu"] is None for found in organs.values() for organ in found.values())
    rows = list(csv.DictReader((tmp_path / "volumes.csv").open()))
    assert {row["mean_hu"] for row in rows} == {""}
    seg, sr, structures = (
        pydicom.dcmread(next((tmp_path / "mr/series").glob(f"{kind}*.dcm"))) for kind in ("seg", "sr", "rtstruct")
    )
    assert [one.StudyInstanceUID for one in (seg, sr, structures)] == [phantoms.UID_ROOT + ".1"] * 3
    told = str(sr)
    assert "MRI unspecified body region" in told
    assert "Hounsfield" not in told
    assert "CT unspecified" not in told


def test_weights_for_ct_still_refuse_mr(place, tmp_path):
    root, manifest = place
    done, records = segment(root, manifest, tmp_path, "--weights", "tiny")
    assert done.returncode == 3
    assert {name: record["code"] for name, record in records.items()} == {
        "mr/series": "E_MODALITY", "files/signal": "E_MODALITY", "ct/series": None, "files/hu": None,
    }  # fmt: skip


def test_one_run_looks_for_one_modality(place, tmp_path):
    root, manifest = place
    done = agseg(
        "segment",
        root / "studies",
        "-o",
        tmp_path,
        "--manifest",
        manifest,
        "--weights",
        "tiny",
        "--weights",
        "tiny-mr",
        AGSEG_HOME=root / "home",
    )
    assert done.returncode == 2
    assert "CT: tiny; MR: tiny-mr" in " ".join(done.stderr.split())


def test_inspect_tells_which_weights_could_do_a_study(place):
    root, manifest = place
    able = installed_weights(Manifest.load(manifest), WeightsCache(root / "home", offline=True))
    found = {study.study.id: study for study in inspect([root / "studies"], able=able).studies}
    assert all(study.is_ok for study in found.values())
    assert found["mr/series"].weights == found["files/signal"].weights == ("tiny-mr",)
    assert "tiny" in found["ct/series"].weights
    assert found["ct/series"].weights == found["files/hu"].weights == able["CT"]
    refused = {study.study.id: study for study in inspect([root / "studies"], able={"CT": able["CT"]}).studies}
    assert {name for name, study in refused.items() if not study.is_ok} == {"mr/series", "files/signal"}
