"""mosaic.png: slices of each organ, cropped to it, with the slice that shows why to look twice in front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from agseg.grid import Grid
from agseg.io import mosaic
from agseg.io.mosaic import MOST_ORGANS, SLICES, render_mosaic, write_mosaic
from agseg.labels import LabelSet
from agseg.measure.volumes import measure
from agseg.volume import LabelMask, Volume

NAMES = LabelSet.from_mapping({1: "liver", 2: "spleen"})
ODD = 17


def case() -> tuple[Volume, LabelMask]:
    """A liver of 60 HU whose slice ODD holds fat, and a spleen that is not there; 2 x 2 x 3 mm."""
    labels = np.zeros((60, 50, 30), dtype=np.uint8)
    labels[10:40, 12:30, 5:25] = 1
    hu = np.full(labels.shape, 60, dtype=np.int16)
    hu[10:20, 12:30, ODD] = -100
    grid = Grid(labels.shape, np.diag([2.0, 2.0, 3.0, 1.0]))
    return Volume(hu, grid), LabelMask(labels, grid, NAMES)


def rows_of(volume: Volume, mask: LabelMask, monkeypatch: pytest.MonkeyPatch, *reasons: str) -> list:
    made = []
    real = mosaic._row
    monkeypatch.setattr(mosaic, "_row", lambda *given: made.append(real(*given)) or made[-1])
    render_mosaic(volume, mask, [replace(found, review=reasons) for found in measure(mask, volume)])
    return made


def test_an_organ_has_its_slices_from_feet_to_head_and_an_absent_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = rows_of(*case(), monkeypatch)
    assert row.title.startswith("liver")
    assert len(row.slices) == SLICES
    assert list(row.slices) == sorted(row.slices)
    assert 5 <= row.slices[0] < row.slices[-1] < 25
    assert row.box == (slice(2, 48), slice(4, 38))
    assert row.shows_reason is None


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SPL"])
def test_the_slice_that_shows_the_reason_comes_first_in_any_orientation(monkeypatch: pytest.MonkeyPatch, codes: str) -> None:
    volume, mask = case()
    grid, permutation, flips = volume.grid.reoriented(codes)
    turn = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    volume = Volume(volume.voxels.transpose(permutation)[turn], grid)
    mask = LabelMask(mask.labels.transpose(permutation)[turn], grid, NAMES)
    (row,) = rows_of(volume, mask, monkeypatch, "holds fat or air")
    assert row.shows_reason == row.slices[0] == ODD


def test_a_picture_is_written_whatever_was_found(tmp_path: Path) -> None:
    volume, mask = case()
    for name, labels in (("some", mask.labels), ("none", np.zeros_like(mask.labels))):
        shown = LabelMask(labels, volume.grid, NAMES)
        write_mosaic(tmp_path / f"{name}.png", volume, shown, measure(shown, volume))
        with PIL.Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size[0] > 6 * 180
            assert (picture.size[1] > 180) == (name == "some")


def test_many_organs_do_not_make_an_endless_picture() -> None:
    labels = np.zeros((40, 40, 20), dtype=np.uint8)
    for number in range(MOST_ORGANS + 4):
        labels[2 * number : 2 * number + 2, 5:20, 5:15] = number + 1
    names = LabelSet.from_mapping({number + 1: f"structure_{number}" for number in range(MOST_ORGANS + 4)})
    grid = Grid(labels.shape, np.diag([2.0, 2.0, 3.0, 1.0]))
    volume, mask = Volume(np.zeros(labels.shape, dtype=np.int16), grid), LabelMask(labels, grid, names)
    assert render_mosaic(volume, mask, measure(mask, volume)).size[1] < (MOST_ORGANS + 1) * 215
