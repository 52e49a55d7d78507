"""Figure 5 in our form: what was found, missed and invented, in cases that were not picked by hand."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from agseg.grid import Grid
from agseg.io.nifti_write import write_mask
from agseg.labels import LabelSet
from agseg.measure.overlap import overlap
from agseg.training.cohort import describe_cohort, open_cohort, write_volume_case
from agseg.training.evaluation import Evaluation, write_evaluation
from agseg.training.scoring import score_masks
from agseg.training.side_by_side import Shown, chosen_cases, draw_side_by_side
from agseg.volume import LabelMask, Volume
from agseg.workflows.compare_masks import write_side_by_side

ORGAN = LabelSet.from_mapping({1: "pancreas"})
GRID = Grid((40, 40, 5), np.diag([2.0, 2.0, 4.0, 1.0]))


def mask(x0, x1):
    labels = np.zeros(GRID.shape, np.uint8)
    labels[x0:x1, 10:20, 2] = 1
    return LabelMask(labels, GRID, ORGAN)


def volume():
    return Volume(np.full(GRID.shape, 40, np.int16), GRID)


def test_the_greatest_the_middle_and_the_least_gain_are_shown():
    first = {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5, "e": math.nan}
    second = {"a": 0.6, "b": 0.9, "c": 0.4, "d": 0.55, "e": 1.0, "f": 1.0}
    assert [case for case, _ in chosen_cases(first, second)] == ["b", "d", "c"]
    assert chosen_cases({"a": 0.5}, {"a": 0.5}) == (("a", 0.0),)
    assert chosen_cases({"a": math.nan}, {"a": 0.5}) == ()


def test_hits_misses_and_inventions_have_their_colours_where_they_are():
    """The reference reaches from x = 10 to 20, the prediction from 15 to 25; right is left on the picture."""
    shown = Shown("case", volume(), mask(10, 20), {"ours": mask(15, 25)})
    picture = np.asarray(draw_side_by_side([shown], organ="pancreas")).astype(int)
    # 40 x 35 voxels of 2 x 2 mm from above, 40 x 5 of 2 x 4 mm from the front, and the same of 35 from the side.
    tops = {"axial": (20, 282), "coronal": (288, 363), "sagittal": (369, 455)}
    for plane, (top, bottom) in tops.items():
        panel = picture[top:bottom, 306:]
        red, green, blue = (panel[..., c] for c in range(3))
        is_missed, is_hit, is_invented = red > green + 60, green > red + 60, blue > red + 60
        areas = [int(found.sum()) for found in (is_invented, is_hit, is_missed)]
        if plane == "sagittal":  # through the first of the planes that show most of the reference: all of it missed
            assert areas[:2] == [0, 0]
            assert areas[2] > 1000
            continue
        columns = [np.flatnonzero(found.any(axis=0)).mean() for found in (is_invented, is_hit, is_missed)]
        assert columns == sorted(columns)
        assert min(areas) > 250
        assert plane != "axial" or max(areas) < 1.15 * min(areas)  # five voxels each; words lie over a low plane


def test_two_evaluations_that_wrote_their_masks_are_drawn(tmp_path):
    names = ("a", "b", "c", "d")
    for case in names:
        write_volume_case(tmp_path / "data", case, volume(), mask(10, 20))
    describe_cohort(tmp_path / "data", name="mine", label_set=ORGAN, modality="CT", file_ending=".nii.gz", cases=4)
    folders = {}
    for model, shift in (("poor", 6), ("good", 1)):
        scores = []
        for number, case in enumerate(names):
            found = mask(10 + shift + number, 20 + shift + number)
            scores += score_masks(case, found, mask(10, 20), organs=["pancreas"])
            folder = tmp_path / model / "predictions"
            folder.mkdir(parents=True, exist_ok=True)
            write_mask(folder / f"{case}.nii.gz", found.labels, GRID)
        folders[model] = Evaluation("", model, "mine", tuple(scores))
        write_evaluation(tmp_path / model, folders[model])
    assert overlap(mask(11, 21).of("pancreas"), truth=mask(10, 20).of("pancreas")).dice == 0.9
    written = write_side_by_side(tmp_path / "good", folders["good"], [tmp_path / "poor"], open_cohort(tmp_path / "data"))
    assert [path.name for path in written] == ["side_by_side-1-pancreas.png"]
    with Image.open(written[0]) as picture:
        assert picture.width == 3 * 306 - 6
    (tmp_path / "poor/predictions/a.nii.gz").unlink()
    for case in "bcd":
        (tmp_path / f"poor/predictions/{case}.nii.gz").unlink()
    assert write_side_by_side(tmp_path / "good", folders["good"], [tmp_path / "poor"], open_cohort(tmp_path / "data")) == ()
