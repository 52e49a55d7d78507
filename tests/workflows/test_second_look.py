"""A second network that looks at the organs too: it is said where the two disagree, and no mask changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agseg.errors import UsageError
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.weights.manifest import Manifest
from agseg.workflows.choose_networks import choose_networks, choose_second
from agseg.workflows.segment import SegmentRequest, segment
from tests import phantoms
from tests.tiny_weights import write_site_manifest
from tests.workflows.test_networks import SHAPE, SPACING
from tests.workflows.test_networks import request as plain

LABELS, DEFAULT = "{1: pancreas, 2: kidney_left}", "    default_for: [pancreas, kidney_left]\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny``, and the same network as ``twin``, with its organs exchanged as ``swapped``, and as one for the liver."""
    root = tmp_path_factory.mktemp("second")
    manifest = write_site_manifest(root)
    head, _, entry = manifest.read_text().partition("  tiny:")
    other = entry.replace(DEFAULT, "")
    others = {
        "twin": other,
        "swapped": other.replace(LABELS, "{1: kidney_left, 2: pancreas}"),
        "livers": other.replace(LABELS, "{1: liver, 2: spleen}"),
    }
    manifest.write_text(f"{head}  tiny:{entry}" + "".join(f"  {name}:{text}" for name, text in others.items()))
    affine = phantoms.coded_affine("LPI", SHAPE, SPACING)
    phantoms.write_nifti(root / "in" / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    return root


def request(site: Path, out: str, second: str | None, *organs: str) -> SegmentRequest:
    return replace(plain(site, out, *(organs or ("pancreas", "kidney_left"))), second_look=second)


def one(report: BatchReport) -> StudyReport:
    (study,) = report.studies
    return study


def disagreements(study: StudyReport) -> dict[str, list[str]]:
    return {organ.name: [r for r in organ.review if r.startswith("networks disagree")] for organ in study.organs}


@pytest.mark.slow
def test_it_is_said_where_the_two_disagree_and_no_mask_changes(site: Path) -> None:
    segment(request(site, "alone", None))
    agreeing, opposed = (one(segment(request(site, name, name))) for name in ("twin", "swapped"))
    for name in ("twin", "swapped"):
        for organ in ("pancreas", "kidney_left"):
            mask = f"scan/{organ}.nii.gz"
            assert (site / name / mask).read_bytes() == (site / "alone" / mask).read_bytes()
    assert not any(disagreements(agreeing).values())
    assert all("Dice of the two 0.00" in reasons[0] for reasons in disagreements(opposed).values())
    assert "swapped finds" in disagreements(opposed)["pancreas"][0]
    told = json.loads((site / "swapped" / "scan" / "second-look.json").read_bytes())
    volumes = {organ.name: organ.volume_ml for organ in opposed.organs}
    assert (told["weights"], told["organs"]["pancreas"]["dice"]) == ("swapped", 0)
    assert told["organs"]["pancreas"]["volume_ml"] == pytest.approx(volumes["pancreas"])
    assert told["organs"]["pancreas"]["other_ml"] == pytest.approx(volumes["kidney_left"])
    record = json.loads((site / "swapped" / "run.json").read_bytes())
    assert record["parameters"]["second_look"].startswith("swapped ")
    assert [weights["id"] for weights in record["all_weights"]] == ["tiny"]


@pytest.mark.slow
def test_a_study_is_looked_at_once_by_the_same_network_and_again_by_another(site: Path) -> None:
    first = one(segment(request(site, "again", None)))
    mask = (site / "again" / "scan" / "pancreas.nii.gz").read_bytes()
    for second, status in (
        ("swapped", StudyStatus.DONE),
        ("swapped", StudyStatus.SKIPPED),
        ("twin", StudyStatus.DONE),
        (None, StudyStatus.SKIPPED),
    ):
        study = one(segment(request(site, "again", second)))
        assert study.status is status
        assert any(disagreements(study).values()) is (second == "swapped")
    assert not any(disagreements(first).values())
    assert (site / "again" / "scan" / "pancreas.nii.gz").read_bytes() == mask
    assert not list((site / "again" / "scan").glob("earlier-*"))


@pytest.mark.slow
def test_an_organ_that_joins_later_is_looked_at_too(site: Path) -> None:
    segment(request(site, "later", "swapped", "pancreas"))
    both = one(segment(request(site, "later", "swapped")))
    assert all(disagreements(both).values())
    assert set(json.loads((site / "later/scan/second-look.json").read_bytes())["organs"]) == {"pancreas", "kidney_left"}


@pytest.mark.parametrize(("name", "words"), [("livers", "nothing to take a second look at"), ("tiny", "make themselves"),
                                             ("nobody", "no weights have this id"), ("sononet16", "modalities")])  # fmt: skip
def test_a_network_that_has_nothing_to_compare_is_refused_before_the_run(site: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        segment(request(site, "refused", name))
    assert words in caught.value.sentence()
    assert not (site / "refused").exists()


def test_only_organs_that_others_make_are_compared(site: Path) -> None:
    manifest = Manifest.load(site / "site.yaml", home=site / "home")
    chosen = choose_networks(manifest, ("pancreas", "liver"), ("tiny", "livers"))
    assert choose_second(manifest, "swapped", chosen)[1] == ("pancreas",)
