"""Laws of the preview: the patient's right is on the left however the voxels are stored; millimetres are square."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from agseg.grid import Grid
from agseg.io.drawing import as_ras
from agseg.io.preview import _centre, render_overlay, render_preview, write_overlay, write_preview
from agseg.labels import LabelSet
from agseg.report import Measurement, OrganStatus
from agseg.volume import LabelMask, Quantity, Volume

LABELS = LabelSet.from_mapping({1: "liver", 2: "spleen"})
LIVER, SPLEEN = LABELS["liver"].rgb, LABELS["spleen"].rgb
SIDE, MARGIN = 360, 10
SHAPE = (40, 30, 20)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """RAS voxels: liver right, anterior and high; spleen left, posterior and low."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[26:36, 14:26, 8:18] = 1
    labels[4:12, 4:16, 2:12] = 2
    return np.where(labels > 0, 60, -100).astype(np.int16), labels


def stored(codes: str, spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0)) -> tuple[Volume, LabelMask]:
    """The scene with its voxels stored in another orientation."""
    ras = Grid(SHAPE, np.diag([*spacing_mm, 1.0]))
    grid, permutation, flips = ras.reoriented(codes)
    cut = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    voxels, labels = (np.asfortranarray(array.transpose(permutation)[cut]) for array in scene())
    return Volume(voxels, grid), LabelMask(labels, grid, LABELS)


def where(picture: np.ndarray, rgb: tuple[int, int, int], panel: int) -> tuple[float, float]:
    """Mean row and column of an organ's contour in one of the three pictures."""
    left = MARGIN + panel * (SIDE + MARGIN)
    part = picture[MARGIN : MARGIN + SIDE, left : left + SIDE].astype(int)
    rows, columns = np.nonzero((np.abs(part - rgb).sum(axis=2)) == 0)
    assert rows.size, "the organ is not drawn"
    return float(rows.mean()), float(columns.mean())


def test_right_is_left_anterior_is_up_superior_is_up() -> None:
    volume, mask = stored("RAS")
    picture = np.asarray(render_preview(volume, mask, ()))
    liver, spleen = where(picture, LIVER, 0), where(picture, SPLEEN, 0)
    assert liver[1] < SIDE / 2 < spleen[1]  # the patient's right is on the left
    assert liver[0] < spleen[0]  # anterior above posterior
    liver, spleen = where(picture, LIVER, 1), where(picture, SPLEEN, 1)
    assert liver[1] < SIDE / 2 < spleen[1]
    assert liver[0] < spleen[0]  # superior above inferior


def _drawn(picture: np.ndarray, rgb: tuple[int, int, int], panel: int) -> bool:
    left = MARGIN + panel * (SIDE + MARGIN)
    return bool((np.abs(picture[MARGIN : MARGIN + SIDE, left : left + SIDE].astype(int) - rgb).sum(axis=2) == 0).any())


ORIENTATIONS = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_the_picture_does_not_depend_on_how_the_voxels_are_stored(codes: str) -> None:
    assert np.array_equal(np.asarray(render_preview(*stored("RAS"), ())), np.asarray(render_preview(*stored(codes), ())))


def test_a_millimetre_is_as_long_down_as_across() -> None:
    voxels = np.full((50, 50, 10), -1000, np.int16)
    voxels[10:40, 10:40, :] = 400
    grid = Grid(voxels.shape, np.diag([1.0, 1.0, 5.0, 1.0]))
    mask = LabelMask(np.zeros(voxels.shape, np.uint8), grid, LABELS)
    picture = np.asarray(render_preview(Volume(voxels, grid), mask, ()).convert("L"))
    coronal = picture[MARGIN : MARGIN + SIDE, MARGIN + SIDE + MARGIN :][:, :SIDE] > 200
    rows, columns = (np.ptp(found) for found in np.nonzero(coronal[20:-20, 20:-20]))
    # 30 mm across and 50 mm down, 7.2 pixels per mm; the letters at the edge are cut away.
    assert columns == pytest.approx(30 * SIDE / 50, abs=6)
    assert rows == pytest.approx(SIDE - 40, abs=2)


def test_no_organ_is_a_picture_of_the_middle_and_the_legend_says_so() -> None:
    volume, mask = stored("LPS")
    empty = LabelMask(np.zeros_like(mask.labels), mask.grid, LABELS)
    found = (Measurement("liver", OrganStatus.ABSENT), Measurement("heart", OrganStatus.NOT_IN_WEIGHTS))
    picture = render_preview(volume, empty, found)
    assert picture.width == 3 * SIDE + 4 * MARGIN
    assert not _drawn(np.asarray(picture), LIVER, 0)
    assert picture.height == render_preview(volume, empty, found[:1]).height


def test_a_signal_without_units_gets_a_window_of_its_own() -> None:
    volume, mask = stored("RAS")
    signal = Volume((volume.voxels * 0.001).astype(np.float32), volume.grid, quantity=Quantity.SIGNAL, modality="MR")
    assert np.asarray(render_preview(signal, mask, ()).convert("L"))[MARGIN : MARGIN + SIDE].max() > 200


def test_both_are_written_whole(tmp_path: Path) -> None:
    volume, mask = stored("LAS")
    write_preview(tmp_path / "preview.png", volume, mask, ())
    heat = (mask.labels == 1).astype(np.float32)
    write_overlay(tmp_path / "gate.png", volume, heat, title="gate 1")
    for path in tmp_path.iterdir():
        with PIL.Image.open(path) as picture:
            picture.load()
    assert len(list(tmp_path.iterdir())) == 2
    red = np.asarray(render_overlay(volume, heat))[MARGIN : MARGIN + SIDE].astype(int)
    _, columns = np.nonzero(red[..., 0] - red[..., 2] > 100)
    assert columns[columns < SIDE].mean() < SIDE / 2 + MARGIN


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "IPL"])
def test_the_planes_show_most_organs_and_of_those_the_largest_area(codes: str) -> None:
    generator = np.random.default_rng(7)
    ras = generator.choice(np.array([0, 0, 0, 1, 2, 9], np.uint8), size=(11, 9, 7))
    ras[3, :, 4] = 9
    grid, permutation, flips = Grid(ras.shape, np.eye(4)).reoriented(codes)
    stored_as = np.asfortranarray(ras.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)])
    labels, _ = as_ras(stored_as, grid)
    for axis, plane in enumerate(_centre(labels)):
        shares = np.zeros(ras.shape[axis])
        for value in (1, 2, 9):
            area = (np.moveaxis(ras, axis, 0) == value).sum(axis=(1, 2))
            shares += area / area.max()
        assert plane == shares.argmax()
