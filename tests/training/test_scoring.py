"""A score does not depend on how an array happens to lie."""

from __future__ import annotations

import itertools
from dataclasses import astuple

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.measure.surface import s2s_slice_mm
from agseg.training.scoring import score_masks
from agseg.volume import LabelMask

ORGAN = LabelSet.from_mapping({1: "liver"})
SPACING_MM = (1.0, 2.0, 5.0)
RAS = Grid((12, 10, 8), np.diag([*SPACING_MM, 1.0]))
ORIENTATIONS = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two bodies that differ by another distance along each patient axis."""
    truth, prediction = np.zeros(RAS.shape, dtype=np.uint8), np.zeros(RAS.shape, dtype=np.uint8)
    truth[2:7, 3:7, 1:5] = 1
    prediction[4:9, 3:8, 2:7] = 1
    return truth, prediction


def test_a_tilted_scan_is_measured_where_its_voxels_are() -> None:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[1, 2] = 3.0
    grid = Grid((5, 9, 4), affine)
    truth, prediction = np.zeros(grid.shape, dtype=np.uint8), np.zeros(grid.shape, dtype=np.uint8)
    # One slice on and three rows back is straight above in the patient: 4 mm, and not the 5.8 mm of a right angle.
    truth[2, 6, 1] = prediction[2, 3, 2] = 1
    (found,) = score_masks("a", LabelMask(prediction, grid, ORGAN), LabelMask(truth, grid, ORGAN), organs=["liver"])
    assert found.s2s == pytest.approx(4.0)
    assert found.hausdorff95 == pytest.approx(4.0)
    prediction[2, 8, 1] = 1
    (found,) = score_masks("a", LabelMask(prediction, grid, ORGAN), LabelMask(truth, grid, ORGAN), organs=["liver"])
    assert found.s2s_slice == pytest.approx(2.0)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_of_the_array_scores_the_same(codes: str) -> None:
    grid, permutation, flips = RAS.reoriented(codes)
    flipped = [axis for axis, flip in enumerate(flips) if flip]
    truth, prediction = (np.flip(labels.transpose(permutation), tuple(flipped)) for labels in pair())
    (found,) = score_masks("a", LabelMask(prediction, grid, ORGAN), LabelMask(truth, grid, ORGAN), organs=["liver"])
    plain_truth, plain_prediction = pair()
    (plain,) = score_masks("a", LabelMask(plain_prediction, RAS, ORGAN), LabelMask(plain_truth, RAS, ORGAN), organs=["liver"])
    for one, other in zip(astuple(found), astuple(plain), strict=True):
        assert one == (pytest.approx(other) if isinstance(other, float) else other)
    axial = s2s_slice_mm(plain_prediction == 1, truth=plain_truth == 1, spacing_mm=SPACING_MM, slice_axis=2)
    assert found.s2s_slice == pytest.approx(axial)


def test_without_distances_the_counts_are_the_same() -> None:
    truth, prediction = (LabelMask(values, RAS, ORGAN) for values in pair())
    (whole,) = score_masks("a", prediction, truth, organs=["liver"])
    (counted,) = score_masks("a", prediction, truth, organs=["liver"], distances=False)
    assert counted.counts == whole.counts
    assert counted.values.keys() == whole.values.keys()
    assert np.isnan([counted.s2s, counted.s2s_area, counted.surface_dice]).all()
