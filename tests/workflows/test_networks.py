"""Several networks in one run: each organ by its own weights, and every row says which those were."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agseg.errors import UsageError
from agseg.io.outputs import Outputs
from agseg.report import StudyStatus
from agseg.weights.manifest import Manifest
from agseg.workflows.choose_networks import choose_networks
from agseg.workflows.options import SegmenterOptions, Shaping
from agseg.workflows.segment import SegmentRequest, segment
from tests import phantoms
from tests.tiny_weights import write_site_manifest

SHAPE, SPACING = (30, 26, 16), (4.0, 4.0, 5.0)


def two_entries(folder: Path) -> Path:
    """``tiny`` for pancreas and left kidney, and the same file as ``other`` for spleen and liver."""
    manifest = write_site_manifest(folder)
    head, _, entry = manifest.read_text().partition("  tiny:")
    other = entry.replace("{1: pancreas, 2: kidney_left}", "{1: spleen, 2: liver}").replace(
        "[pancreas, kidney_left]", "[spleen, liver]"
    )
    manifest.write_text(f"{head}  tiny:{entry}  other:{other}")
    return manifest


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    two_entries(root)
    affine = phantoms.coded_affine("LPI", SHAPE, SPACING)
    phantoms.write_nifti(root / "in" / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    return root


def request(site: Path, out: str, *organs: str, weights: tuple[str, ...] = (), **options: object) -> SegmentRequest:
    return SegmentRequest(
        inputs=(site / "in",), output=site / out, home=site / "home", organs=organs, weights=weights,
        manifest=site / "site.yaml", offline=True,
        options=SegmenterOptions(
            device="cpu", shaping=Shaping(precision="fp32"), outputs=Outputs(preview=False, **options)  # type: ignore[arg-type]
        ),
    )  # fmt: skip


@pytest.mark.slow
def test_organs_with_different_defaults_are_one_run_and_each_row_names_its_weights(site: Path) -> None:
    report = segment(request(site, "both", "liver", "pancreas"))
    assert [weights.id for weights in report.weights] == ["other", "tiny"]
    (study,) = report.studies
    assert study.status is StudyStatus.DONE
    assert [(o.name, o.weights, o.run) for o in study.organs] == [
        ("liver", "other", report.run_id), ("pancreas", "tiny", report.run_id),
    ]  # fmt: skip
    assert [weights.id for weights in study.weights] == ["other", "tiny"]
    # As each network alone makes it, byte for byte.
    for organ in ("liver", "pancreas"):
        segment(request(site, f"only-{organ}", organ))
        name = f"scan/{organ}.nii.gz"
        assert (site / "both" / name).read_bytes() == (site / f"only-{organ}" / name).read_bytes()
    record = json.loads((site / "both" / "run.json").read_bytes())
    assert record["schema"] == "agseg.run/2"
    assert (record["weights"]["id"], [w["id"] for w in record["all_weights"]]) == ("other", ["other", "tiny"])
    rows = list(csv.DictReader((site / "both" / "volumes.csv").read_text().splitlines()))
    assert [(row["organ"], row["weights"], row["run"]) for row in rows] == [
        ("liver", "other", report.run_id), ("pancreas", "tiny", report.run_id),
    ]  # fmt: skip
    assert {row["weights_sha256"] for row in rows} == {weights.sha256 for weights in report.weights}
    again = segment(request(site, "both", "liver", "pancreas"))
    (study,) = again.studies
    assert (study.status, [o.run for o in study.organs]) == (StudyStatus.SKIPPED, [report.run_id] * 2)


def test_the_first_weights_that_know_an_organ_make_it(site: Path) -> None:
    manifest = Manifest.load(site / "site.yaml")

    def chosen(*organs: str, weights: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
        return [(entry.id, makes) for entry, makes in choose_networks(manifest, organs, weights)]

    assert chosen("pancreas") == [("tiny", ("pancreas",))]
    assert chosen("liver", "pancreas", "spleen") == [("other", ("liver", "spleen")), ("tiny", ("pancreas",))]
    assert chosen(weights=("other", "tiny", "other")) == [("other", ("spleen", "liver")), ("tiny", ("pancreas", "kidney_left"))]
    packaged = chosen("pancreas", "liver", weights=("tiny", "attention-unet-abdomen"))
    assert packaged == [("tiny", ("pancreas",)), ("attention-unet-abdomen", ("liver",))]
    with pytest.raises(UsageError, match="nothing to do"):
        chosen("pancreas", weights=("attention-unet-abdomen", "anu-net-abdomen"))
    with pytest.raises(UsageError, match="know none"):
        chosen("pancreas", weights=("tiny", "other"))


@pytest.mark.slow
def test_a_calibration_reaches_the_review_list_and_no_mask(site: Path) -> None:
    plain, sure = request(site, "plain", "pancreas"), site / "sure.yaml"
    doubted = site / "doubted.yaml"
    for path, shift in ((sure, 13), (doubted, -13)):
        known = (site / "site.yaml").read_text()
        path.write_text(known.replace("  tiny:\n", f"  tiny:\n    calibration: {{pancreas: {{scale: 1.0, shift: {shift}}}}}\n"))
        segment(replace(plain, output=site / path.stem, manifest=path))
    segment(plain)
    masks = {(site / out / "scan" / "pancreas.nii.gz").read_bytes() for out in ("plain", "sure", "doubted")}
    assert len(masks) == 1
    reviews = {}
    for out in ("sure", "doubted"):
        (row,) = csv.DictReader((site / out / "volumes.csv").read_text().splitlines())
        reviews[out] = row["review"]
    assert "low margin" not in reviews["sure"]
    assert "low margin (mean probability 0.00, below 0.5)" in reviews["doubted"]
