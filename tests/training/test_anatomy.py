"""Laws of anatomical label maps on a scan's grid."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel
import numpy as np

from agseg.grid import Grid
from agseg.io.nifti_write import write_mask
from agseg.training.anatomy import BONE, FAT, GAS, OUTSIDE, SOFT, body_mask, complete, structures_on


def body() -> np.ndarray:
    image = np.full((30, 30, 12), -1000.0, dtype=np.float32)
    image[5:27, 5:25, :] = 40.0
    image[6:10, 6:24, :] = -100.0
    image[12:14, 12:14, :] = 900.0
    image[17:19, 10:20, :] = -900.0
    image[2:28, 1:2, :] = 60.0  # a table
    return image


def test_density_completes_a_label_map_and_labels_stay() -> None:
    image, labels = body(), np.zeros((30, 30, 12), dtype=np.uint8)
    labels[15:17, 15:17, :] = 5
    whole = complete(image, labels)
    assert (whole[15:17, 15:17, :] == 5).all()
    assert set(np.unique(whole)) == {5, OUTSIDE, FAT, SOFT, BONE, GAS}
    assert (whole[image == 900.0] == BONE).all()
    assert (whole[7:9, 8:22, 3:9] == FAT).all()
    assert (whole[18, 12:18, :] == GAS).all()
    assert (whole[:, 1, :] == OUTSIDE).all()


def test_a_scan_of_air_has_no_body() -> None:
    assert not body_mask(np.full((8, 8, 8), -1000.0, dtype=np.float32)).any()


def test_a_label_map_is_read_by_place_not_by_index(tmp_path: Path) -> None:
    labels = np.zeros((6, 5, 4), dtype=np.uint8)
    labels[1, 2, 3] = 7
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (10.0, -5.0, 2.0)
    grid = Grid((6, 5, 4), affine)
    write_mask(tmp_path / "labels.nii.gz", labels, grid)
    flipped, _, _ = grid.reoriented("RAS")
    found = structures_on(flipped, tmp_path / "labels.nii.gz")
    assert found.sum() == 7
    place = np.argwhere(found == 7)[0]
    np.testing.assert_allclose(flipped.to_world([place.tolist()])[0], grid.to_world([[1, 2, 3]])[0])


def test_a_label_map_means_what_its_header_says(tmp_path: Path) -> None:
    labels = np.zeros((6, 5, 4), dtype=np.uint8)
    labels[1, 2, 3], labels[4, 2, 1] = 7, 255
    image = nibabel.Nifti1Image((labels * 0.5).astype(np.float32), np.eye(4))
    content = bytearray(image.to_bytes())
    struct.pack_into("<ff", content, 112, 2.0, 0.0)
    (tmp_path / "labels.nii").write_bytes(content)
    assert np.array_equal(structures_on(Grid((6, 5, 4), np.eye(4)), tmp_path / "labels.nii"), labels)
