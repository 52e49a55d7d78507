"""Labels of a cohort are read as its files mean them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from agseg.errors import InputError
from agseg.labels import LabelSet
from agseg.training.cohort import Cohort
from agseg.training.description import PNG

LABELS = LabelSet.from_mapping({1: "liver", 2: "spleen"})


def cohort(root: Path, ending: str = ".nii.gz") -> Cohort:
    (root / "labelsTr").mkdir()
    return Cohort(root, "made", LABELS, "CT", ending, ("a",))


def test_a_scaled_label_file_means_what_its_header_says(tmp_path: Path) -> None:
    found = cohort(tmp_path)
    stored = np.zeros((5, 4, 3), dtype=np.int16)
    stored[1], stored[2] = 2, 4
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(nibabel.Nifti1Image(stored * 0.5, np.eye(4), image.header), found.label_path("a"))
    written = nibabel.load(found.label_path("a"))
    assert written.dataobj.slope != 1  # the file does hold other numbers than the labels
    labels = found.read_mask("a").labels
    assert (labels[1] == 1).all()
    assert (labels[2] == 2).all()
    assert np.allclose(labels, np.asarray(written.dataobj), atol=1e-4)


@pytest.mark.parametrize("value", [256, 257, -1])
def test_a_value_beyond_a_byte_is_refused_with_its_name(tmp_path: Path, value: int) -> None:
    found = cohort(tmp_path)
    stored = np.zeros((5, 4, 3), dtype=np.int16)
    stored[1] = value
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), found.label_path("a"))
    with pytest.raises(InputError, match=f"found {value},") as caught:
        found.read_mask("a")
    assert caught.value.path == found.label_path("a")


def test_a_picture_of_16_bits_does_not_wrap(tmp_path: Path) -> None:
    found = cohort(tmp_path, PNG)
    labels = np.zeros((6, 7), dtype=np.uint16)
    labels[2] = 2
    Image.fromarray(labels).save(found.label_path("a"))
    assert np.array_equal(found.read_picture_labels("a"), labels)
    labels[3] = 257
    Image.fromarray(labels).save(found.label_path("a"))
    with pytest.raises(InputError, match="found 257,"):
        found.read_picture_labels("a")
