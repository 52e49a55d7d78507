"""Which results come first on the review list, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agseg.errors import ExitCode
from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.measure.agreement import Agreement
from agseg.measure.evidence import EDGE_MM, Evidence, collect
from agseg.measure.review import (
    LOW_CALIBRATED,
    LOW_PROBABILITY,
    MANY_COMPONENTS,
    SEEN_ML,
    SecondLook,
    review,
    review_list,
    reviews,
)
from agseg.measure.usual import AGREE_DICE, MEAN_VOLUME_ML, PAIRS, USUAL, USUALLY_AGREE
from agseg.measure.volumes import measure, survey
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus
from agseg.volume import LabelMask, Quantity, Volume

LIVER = Measurement("liver", OrganStatus.PRESENT, 1500.0, 50000, 60.0)
CUT = replace(LIVER, status=OrganStatus.CUT_OFF, touches_border=True)
SEEN = Evidence(
    extent_mm=(200.0, 180.0, 150.0),
    cut=(False, False, False),
    centre_mm=(60.0, 0.0, 0.0),
    from_midline_mm=70.0,
    second_piece=0.0,
    median_hu=60.0,
    fat_share=0.01,
    other_share=0.02,
)


def test_a_usual_organ_has_no_reason_and_one_that_is_cut_off_neither() -> None:
    assert review(LIVER, SEEN, probability=0.95, components=1) == ()
    assert review(CUT, replace(SEEN, extent_mm=(200.0, 180.0, 40.0), cut=(False, False, True)), probability=0.95) == ()


@pytest.mark.parametrize(
    ("found", "seen", "probability", "components", "starts"),
    [
        (replace(LIVER, volume_ml=100.0), SEEN, 0.9, 1, ["implausible volume"]),
        (replace(LIVER, volume_ml=9000.0), SEEN, 0.9, 1, ["implausible volume"]),
        (replace(CUT, volume_ml=100.0), SEEN, 0.9, 1, []),
        (replace(CUT, volume_ml=9000.0), SEEN, 0.9, 1, ["implausible volume"]),
        (LIVER, replace(SEEN, from_midline_mm=-40.0), 0.9, 1, ["wrong side"]),
        (LIVER, replace(SEEN, fat_share=0.2, other_share=0.4), 0.9, 1, ["holds fat or air", "uneven density"]),
        (LIVER, replace(SEEN, fat_share=0.2, median_hu=None), 0.9, 1, []),
        (LIVER, replace(SEEN, patch_share=0.2), 0.9, 1, ["uneven density"]),
        (LIVER, replace(SEEN, extent_mm=(200.0, 180.0, 60.0)), 0.9, 1, ["implausible extent"]),
        # A scan of a few centimetres shows a pole: narrow in every direction, which is a fact about the scan.
        (CUT, replace(SEEN, extent_mm=(30.0, 30.0, 20.0), cut=(False, False, True)), 0.9, 1, []),
        (LIVER, replace(SEEN, second_piece=0.3), 0.9, 1, ["in two parts"]),
        (replace(LIVER, name="pancreas", volume_ml=70.0), replace(SEEN, second_piece=0.3, from_midline_mm=-40.0), 0.9, 1, []),
        (LIVER, SEEN, LOW_PROBABILITY - 0.01, 1, ["low margin"]),
        (LIVER, SEEN, LOW_PROBABILITY, 1, []),
        (LIVER, SEEN, 0.9, MANY_COMPONENTS + 1, ["many components"]),
        (LIVER, SEEN, 0.9, MANY_COMPONENTS, []),
        (replace(CUT, volume_ml=0.3), SEEN, 0.9, 1, ["a trace"]),
        (replace(LIVER, name="stomach", volume_ml=3000.0), SEEN, None, 0, []),
        (Measurement("liver", OrganStatus.ABSENT), None, 0.1, 9, []),
        (Measurement("liver", OrganStatus.NOT_IN_WEIGHTS), None, 0.1, 0, []),
    ],
)
def test_each_reason_is_given_when_it_holds_and_only_then(
    found: Measurement, seen: Evidence | None, probability: float | None, components: int, starts: list[str]
) -> None:
    reasons = review(found, seen, probability=probability, components=components)
    assert len(reasons) == len(starts)
    assert all(reason.startswith(start) for reason, start in zip(reasons, starts, strict=True))


def test_a_calibrated_probability_has_its_own_limit_where_a_part_is_wrong_as_a_rule() -> None:
    pancreas, between = replace(LIVER, name="pancreas", volume_ml=70.0), (LOW_CALIBRATED["pancreas"] + LOW_PROBABILITY) / 2
    other = replace(LIVER, name="liver")

    def reasons(probability: float, *, calibrated: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        sure = {"pancreas": probability, "liver": probability}
        return reviews([pancreas, other], {}, probability=sure, components={}, calibrated=calibrated)

    assert reasons(between, calibrated=("pancreas", "liver"))["pancreas"] == ()
    assert reasons(between, calibrated=("liver",))["pancreas"] != ()
    assert reasons(between, calibrated=("pancreas", "liver"))["liver"] != ()
    (told,) = reasons(LOW_CALIBRATED["pancreas"] - 0.01, calibrated=("pancreas",))["pancreas"]
    assert told == "low margin (mean probability 0.49, below 0.5)"


def test_an_organ_is_compared_with_its_other_side_and_missed_beside_its_neighbours() -> None:
    def found(left_ml: float | None, right_ml: float | None, left_hu: float = 30.0) -> dict[str, tuple[str, ...]]:
        organs = tuple(
            Measurement(name, OrganStatus.ABSENT if ml is None else OrganStatus.PRESENT, ml)
            for name, ml in (("kidney_left", left_ml), ("kidney_right", right_ml))
        )
        kidney = replace(SEEN, extent_mm=(60.0, 60.0, 110.0))
        evidence = {
            "kidney_left": replace(kidney, from_midline_mm=-70.0, median_hu=left_hu),
            "kidney_right": replace(kidney, median_hu=30.0),
        }
        return reviews(organs, evidence, probability={}, components={})

    assert not any(found(150.0, 170.0).values())
    assert found(80.0, 200.0)["kidney_left"][0].startswith("unlike its other side")
    assert found(80.0, 200.0)["kidney_right"] == ()
    assert found(150.0, 170.0, left_hu=120.0)["kidney_right"][0].startswith("unlike its other side")
    assert found(None, 170.0)["kidney_left"] == ("absent beside its neighbours (right kidney found)",)
    assert not any(found(None, None).values())


def test_an_organ_of_which_the_scan_shows_a_little_does_not_make_its_neighbours_missed() -> None:
    def missed(ml: float, status: OrganStatus) -> bool:
        organs = (Measurement("kidney_left", OrganStatus.ABSENT), Measurement("kidney_right", status, ml))
        return bool(reviews(organs, {}, probability={}, components={})["kidney_left"])

    assert missed(40.0, OrganStatus.PRESENT)
    assert missed(150.0, OrganStatus.CUT_OFF)
    assert not missed(40.0, OrganStatus.CUT_OFF)


def test_two_networks_that_disagree_are_a_reason_and_two_that_agree_are_none() -> None:
    pancreas = Measurement("pancreas", OrganStatus.PRESENT, 70.0)
    absent = Measurement("spleen", OrganStatus.ABSENT)

    def said(*organs: Measurement, **seen: Agreement) -> dict[str, tuple[str, ...]]:
        return reviews(organs, {}, probability={}, components={}, second=SecondLook("other", seen))

    liver = said(LIVER, liver=Agreement(USUALLY_AGREE - 0.01, 1500.0, 1100.0))["liver"]
    assert liver == ("networks disagree (other finds 1100 ml, Dice of the two 0.79, usually at least 0.8)",)
    assert said(LIVER, liver=Agreement(USUALLY_AGREE, 1500.0, 1100.0))["liver"] == ()
    assert said(LIVER, spleen=Agreement(0.0, 1.0, 1.0))["liver"] == ()
    assert said(pancreas, pancreas=Agreement(AGREE_DICE["pancreas"], 70.0, 50.0))["pancreas"] == ()
    assert said(LIVER, liver=Agreement(0.0, 1500.0, 0.0))["liver"] == ("networks disagree (other finds nothing of it)",)
    trace = said(LIVER, liver=Agreement(0.0, 1500.0, 0.002))["liver"]
    assert trace == ("networks disagree (other finds less than 1 ml of it)",)
    little = replace(LIVER, volume_ml=0.5, status=OrganStatus.CUT_OFF)
    assert not any("disagree" in reason for reason in said(little, liver=Agreement(0.9, 0.5, 0.4))["liver"])
    assert said(absent, spleen=Agreement(0.0, 0.0, 143.0))["spleen"] == ("networks disagree (other finds 143 ml of it)",)
    assert said(absent, spleen=Agreement(0.0, 0.0, SEEN_ML - 0.1))["spleen"] == ()
    assert said(absent, spleen=Agreement(None, 0.0, 0.0))["spleen"] == ()
    assert said(LIVER)["liver"] == ()


def test_a_share_is_seen_to_be_larger_than_what_is_usual() -> None:
    most = 100 * USUAL["liver"].patch_share
    for above, said in ((0.0004, f"{most + 0.04:.2f} %"), (0.02, f"{most + 2:.0f} %")):
        (reason,) = review(LIVER, replace(SEEN, patch_share=USUAL["liver"].patch_share + above))
        assert f"({said} of its patches" in reason
        assert reason.endswith(f"usually at most {most:g} %)")


def test_limits_hold_the_published_means_and_name_known_organs() -> None:
    for name, usual in USUAL.items():
        low, high = usual.volume_ml
        assert low < min(MEAN_VOLUME_ML[name]) < max(MEAN_VOLUME_ML[name]) < high
        assert set(usual.neighbours) <= set(USUAL)
    assert all(PAIRS[PAIRS[name]] == name and USUAL[name].side == -USUAL[PAIRS[name]].side for name in PAIRS)


# -- evidence -------------------------------------------------------------------------------------------------------------

NAMES = LabelSet.from_mapping({1: "liver", 2: "spleen"})


def phantom(codes: str = "RAS") -> tuple[LabelMask, Volume]:
    """A body of 300 x 200 mm with a liver on the right and a spleen on the left, and air around it; 4 x 4 x 5 mm."""
    shape, spacing = (100, 70, 40), (4.0, 4.0, 5.0)
    grid = Grid(shape, np.diag([*spacing, 1.0]) + np.array([[0, 0, 0, -200], [0, 0, 0, -140], [0, 0, 0, -100], [0, 0, 0, 0]]))
    x, y, z = np.meshgrid(
        *(np.arange(n) * s + o for n, s, o in zip(shape, spacing, (-200, -140, -100), strict=True)), indexing="ij"
    )
    hu = np.where((x / 150) ** 2 + (y / 100) ** 2 <= 1, 0, -1000).astype(np.int16)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[((x - 70) / 70) ** 2 + (y / 60) ** 2 + (z / 70) ** 2 <= 1] = 1
    labels[((x + 90) / 40) ** 2 + (y / 35) ** 2 + (z / 40) ** 2 <= 1] = 2
    hu[labels == 1], hu[labels == 2] = 60, 50
    turned, permutation, flips = grid.reoriented(codes)
    turn = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    return LabelMask(labels.transpose(permutation)[turn], turned, NAMES), Volume(hu.transpose(permutation)[turn], turned)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA"])
def test_evidence_is_that_of_the_patient_whatever_the_orientation(codes: str) -> None:
    mask, volume = phantom(codes)
    evidence = collect(mask, volume, survey(mask, volume))
    liver, spleen = evidence["liver"], evidence["spleen"]
    assert liver.from_midline_mm == pytest.approx(70, abs=6)
    assert spleen.from_midline_mm == pytest.approx(-90, abs=6)
    assert liver.extent_mm == pytest.approx((140, 120, 140), abs=6)
    assert (liver.median_hu, liver.fat_share, liver.other_share, liver.second_piece) == (60, 0, 0, 0)
    assert liver.cut == (False, False, False)


def test_an_organ_that_ends_just_before_the_scan_does_is_cut() -> None:
    mask, volume = phantom()
    top = int(np.flatnonzero((mask.labels == 1).any(axis=(0, 1)))[-1])
    for behind_mm, is_cut in ((0.0, True), (EDGE_MM, True), (2 * EDGE_MM, False)):
        depth = top + 1 + int(behind_mm / 5.0)
        grid = Grid((100, 70, depth), mask.grid.affine)
        short = LabelMask(mask.labels[:, :, :depth], grid, NAMES), Volume(volume.voxels[:, :, :depth], grid)
        assert collect(*short, survey(*short))["liver"].cut == (False, False, is_cut)


def test_a_label_map_with_a_fault_is_told_from_a_sound_one() -> None:
    mask, volume = phantom()
    sound = _reasons(mask, volume)
    assert not [reason for reasons in sound.values() for reason in reasons if not reason.startswith("implausible")]
    swapped = np.array([0, 2, 1], dtype=np.uint8)[mask.labels]
    found = _reasons(LabelMask(swapped, mask.grid, NAMES), volume)
    assert all(reasons[0].startswith("wrong side") for reasons in found.values())
    shifted = np.roll(mask.labels, 12, axis=1)
    assert _reasons(LabelMask(shifted, mask.grid, NAMES), volume)["liver"][0].startswith("holds fat or air")
    signal = replace(volume, quantity=Quantity.SIGNAL)
    assert "fat" not in " ".join(_reasons(LabelMask(shifted, mask.grid, NAMES), signal)["liver"])


def test_an_effusion_in_a_noisy_liver_is_seen_in_its_patches() -> None:
    mask, volume = phantom()
    noise = np.random.default_rng(0).normal(0, 35, volume.voxels.shape).astype(np.int16)
    noisy = replace(volume, voxels=volume.voxels + np.where(mask.labels > 0, noise, 0).astype(np.int16))
    even = collect(mask, noisy, survey(mask, noisy))["liver"]
    behind = (mask.labels == 1) & (np.arange(70)[None, :, None] < 27)
    filled = replace(volume, voxels=np.where(behind, noisy.voxels - 50, noisy.voxels).astype(np.int16))
    patchy = collect(mask, filled, survey(mask, filled))["liver"]
    assert even.patch_share == 0
    assert patchy.patch_share == pytest.approx(behind.sum() / (mask.labels == 1).sum(), abs=0.06)
    assert patchy.patch_share > 0.07


def _reasons(mask: LabelMask, volume: Volume) -> dict[str, tuple[str, ...]]:
    walked = survey(mask, volume)
    return reviews(measure(mask, volume, walked), collect(mask, volume, walked), probability={}, components={})


# -- list -----------------------------------------------------------------------------------------------------------------


def test_the_list_is_worst_first_and_holds_only_studies_with_reasons() -> None:
    def study(name: str, *organs: Measurement) -> StudyReport:
        components = MANY_COMPONENTS + 1 if "m" in name else 1
        return StudyReport(
            name, StudyStatus.DONE, organs=tuple(replace(o, review=review(o, components=components)) for o in organs)
        )

    studies = (
        study("cut", CUT),
        study("fine", LIVER),
        study("wrong", replace(LIVER, volume_ml=10.0)),
        study("m-pieces", LIVER),
        # A record of before.
        StudyReport("old", StudyStatus.SKIPPED, organs=(replace(CUT, review=("cut off by the field of view",)),)),
        StudyReport("bad", StudyStatus.REJECTED),
    )
    report = BatchReport("1", "", "", ExitCode.OK, (), {}, {}, studies, {})
    assert [item.study.input for item in review_list(report)] == ["wrong", "m-pieces"]
    assert review_list(report)[0].reasons[0].startswith("liver: implausible volume")
