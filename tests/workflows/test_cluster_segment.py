"""``agseg segment --cluster``: the main job on workers, with a network whose answer is known."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from tests import phantoms
from tests.tiny_weights import write_site_manifest

pytestmark = pytest.mark.slow

pytest.importorskip("distributed")

SHAPE, SPACING = (44, 36, 24), (3.0, 3.0, 3.5)


def agseg(*arguments, home):
    return subprocess.run(
        [sys.executable, "-m", "agseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "AGSEG_HOME": str(home)},
        timeout=300,
        check=False,
    )


def table(folder):
    """volumes.csv without the run's own name."""
    rows = csv.DictReader((folder / "volumes.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "run"} for row in rows]


def test_a_cluster_writes_the_same_masks_and_volumes(tmp_path):
    manifest = write_site_manifest(tmp_path / "site")
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    phantoms.write_dicom(tmp_path / "in" / "axial", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    for code in ("LPI", "RAS"):
        turned = phantoms.coded_affine(code, SHAPE, SPACING)
        phantoms.write_nifti(tmp_path / "in" / f"{code}.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, turned), turned)
    options = ("--manifest", manifest, "--weights", "tiny", "--precision", "fp32", "--json")
    here = agseg("segment", tmp_path / "in", "-o", tmp_path / "here", *options, home=tmp_path / "home")
    there = agseg(
        "segment", tmp_path / "in", "-o", tmp_path / "there", *options, "--cluster", "local:2", home=tmp_path / "home"
    )
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert there.stderr == ""
    record = json.loads(there.stdout)
    assert record["counts"]["done"] == 3
    assert record["environment"]["cluster"]["kind"] == "local"
    assert record["environment"]["torch"] == json.loads(here.stdout)["environment"]["torch"]
    masks = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.nii.gz"))
    assert len(masks) == 6
    for name in masks:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert table(tmp_path / "there") == table(tmp_path / "here")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cluster", "nowhere"), "invalid value for"),
        (("--cluster", "slurm"), "needs its arguments"),
        (("--cluster", "local", "--num-parts", "2"), "shares the studies itself"),
        (("--cluster-config", "x.yaml"), "needs --cluster"),
    ],
)
def test_a_wrong_cluster_exits_2(tmp_path, options, words):
    manifest = write_site_manifest(tmp_path / "site")
    done = agseg("segment", tmp_path, "-o", tmp_path / "out", "--manifest", manifest, *options, home=tmp_path / "home")
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()
