"""Reference and prediction drawn over the image, told apart by line and colour."""

from __future__ import annotations

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.io.contours import FOUND, SIDE_PX, TRUE, draw_contours, draw_picture_contours
from agseg.io.planes import VIEWS, around, plane_of
from agseg.volume import Volume

GRID = Grid((60, 60, 20), np.diag([1.0, 1.0, 3.0, 1.0]))


def box(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[x0:x1, 20:40, 5:15] = True
    return mask


def of_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((np.abs(pixels.astype(int) - colour) < 12).all(axis=-1))


def panels(picture: np.ndarray) -> list[np.ndarray]:
    return [picture[:SIDE_PX, n * (SIDE_PX + 8) : n * (SIDE_PX + 8) + SIDE_PX] for n in range(3)]


def test_both_outlines_lie_where_their_masks_are_and_the_dashed_one_is_half_as_long() -> None:
    volume = Volume(np.full(GRID.shape, 40, dtype=np.int16), GRID)
    axial, coronal, sagittal = panels(np.asarray(draw_contours(volume, box(30, 50), box(10, 30))))
    for panel in (axial, coronal):
        solid, dashes = of_colour(panel, TRUE), of_colour(panel, FOUND)
        # x grows towards the patient's right, which is on the picture's left: the reference, of lower x, lies further right.
        assert solid[:, 1].mean() > dashes[:, 1].mean()
        assert 0.35 < len(dashes) / len(solid) < 0.75
    assert len(of_colour(sagittal, TRUE)) + len(of_colour(sagittal, FOUND)) > 100


def test_the_planes_go_through_the_greatest_difference() -> None:
    truth = box(10, 30)
    prediction = truth.copy()
    prediction[12:28, 22:38, 14] = False  # one slice is missed in its middle
    marked = np.zeros(GRID.shape, dtype=np.int16)
    marked[..., 14] = 240
    axial = panels(np.asarray(draw_contours(Volume(marked, GRID), prediction, truth)))[0]
    assert np.median(axial[50:-50, 50:-50]) > 250  # the bright slice
    assert len(of_colour(axial, FOUND)) > 0


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_the_picture_does_not_depend_on_how_the_array_lies(codes: str) -> None:
    volume = Volume(np.random.default_rng(1).integers(-100, 200, GRID.shape, dtype=np.int16), GRID)
    expected = np.asarray(draw_contours(volume, box(30, 50), box(10, 30)))
    grid, order, flips = GRID.reoriented(codes)

    def laid(values: np.ndarray) -> np.ndarray:
        return values.transpose(order)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]

    turned = Volume(np.ascontiguousarray(laid(volume.voxels)), grid)
    np.testing.assert_array_equal(np.asarray(draw_contours(turned, laid(box(30, 50)), laid(box(10, 30)))), expected)


def test_empty_masks_show_the_whole_plane() -> None:
    nothing = np.zeros(GRID.shape, dtype=bool)
    picture = np.asarray(draw_contours(Volume(np.zeros(GRID.shape, dtype=np.int16), GRID), nothing, nothing))
    assert len(of_colour(picture, TRUE)) == len(of_colour(picture, FOUND)) == 0
    assert around([nothing[..., 0]], (1.0, 1.0), margin_mm=5) == (slice(0, 65), slice(0, 65))
    assert plane_of(nothing, VIEWS[1], 3).shape == (20, 60)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_both_outlines_too(channels: int) -> None:
    picture = np.full((channels, 40, 50), 90.0, dtype=np.float32)
    truth, found = np.zeros((40, 50), dtype=bool), np.zeros((40, 50), dtype=bool)
    truth[10:20, 10:20] = found[10:20, 15:25] = True
    drawn = np.asarray(draw_picture_contours(picture, found, truth))
    assert of_colour(drawn, TRUE)[:, 1].mean() < of_colour(drawn, FOUND)[:, 1].mean()
