"""Who looks first: nobody for packaged weights, packaged weights where it pays, or whoever was named."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from agseg.errors import UsageError
from agseg.io.outputs import Outputs
from agseg.weights.manifest import Manifest
from agseg.workflows.import_model import ImportRequest, import_model
from agseg.workflows.options import SegmenterOptions
from agseg.workflows.scout import choose_scout
from agseg.workflows.segment import segment
from tests.weights.toy_models import DATASET, PLANS, write_model
from tests.workflows.test_import_model import scan

ORGANS = DATASET | {"labels": {"background": 0, "liver": 1, "spleen": 2, "pancreas": 3}}


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    for name, spacing in (("fine", 1.5), ("coarse", 4.0)):
        plans = copy.deepcopy(PLANS)
        plans["configurations"]["3d_fullres"]["spacing"] = [spacing] * 3
        write_model(tmp_path / name, plans=plans, dataset=ORGANS, mirror=None)
        import_model(ImportRequest(tmp_path / name, name, tmp_path / "home"))
    return Manifest.load(home=tmp_path / "home")


def scout_of(
    manifest: Manifest, weights: str, organs: tuple[str, ...], *, wanted: str = "auto", named: bool = True
) -> str | None:
    found = choose_scout(manifest, manifest.entry(weights), organs=organs, wanted=wanted, named=named)
    return None if found is None else found.id


def test_who_looks_first(manifest):
    assert scout_of(manifest, "fine", ("pancreas",)) == "attention-unet-3mm"
    assert scout_of(manifest, "fine", ("pancreas",), wanted="off") is None
    assert scout_of(manifest, "fine", ("pancreas",), wanted="coarse") == "coarse"
    assert scout_of(manifest, "fine", ("liver", "spleen", "pancreas")) is None  # nearly the whole trunk
    assert scout_of(manifest, "fine", ("pancreas",), named=False) is None
    assert scout_of(manifest, "coarse", ("pancreas",)) is None  # no coarser than the scout
    assert scout_of(manifest, "coarse", ("pancreas",), wanted="coarse") is None
    for other, why in (("monai-spleen", "cannot look for"), ("sononet16", "another modality")):
        with pytest.raises(UsageError, match=why):
            scout_of(manifest, "fine", ("pancreas",), wanted=other)


def test_weights_that_are_cropped_to_organs_of_others_are_preceded_by_the_coarsest_that_know_them(manifest):
    vessels = replace(manifest.entry("fine"), id="vessels", crop_to=("liver", "spleen"))
    assert choose_scout(manifest, vessels, organs=("pancreas",), wanted="auto", named=False).id == "attention-unet-abdomen"
    assert choose_scout(manifest, vessels, organs=("pancreas",), wanted="off", named=False) is None
    unknown = replace(vessels, crop_to=("brain",))
    assert choose_scout(manifest, unknown, organs=("pancreas",), wanted="auto", named=True) is None
    with pytest.raises(UsageError, match="cannot look for these organs: found brain"):
        choose_scout(manifest, unknown, organs=("pancreas",), wanted="coarse", named=True)
    magnetic = replace(vessels, input=replace(vessels.input, modality="MR"))
    assert choose_scout(manifest, magnetic, organs=("pancreas",), wanted="auto", named=False) is None


def test_packaged_weights_are_never_preceded(manifest):
    for entry in manifest.entries:
        if entry.id not in ("fine", "coarse") and entry.labels.names:
            assert scout_of(manifest, entry.id, entry.labels.names[:1]) is None


@pytest.mark.slow
def test_the_record_says_which_way_was_taken(tmp_path, manifest):
    from agseg.workflows.segment import SegmentRequest

    image = scan(tmp_path / "in" / "case.nii.gz")
    request = SegmentRequest(
        (image,), tmp_path / "out", tmp_path / "home", organs=("pancreas",), weights=("fine",),
        options=SegmenterOptions(device="cpu", scout="coarse", outputs=Outputs(preview=False)),
    )  # fmt: skip
    report = segment(request).to_dict()
    (study,) = report["studies"]
    assert "W_SCOUT" in {warning["code"] for warning in study["warnings"]}
    assert report["parameters"]["scout"][0].startswith("coarse ")
