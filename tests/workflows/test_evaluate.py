"""Folders of masks are scored by what their files mean."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from agseg.errors import InputError
from agseg.workflows.evaluate_folders import evaluate_folders

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SLOPE_AT = 112
"""Where a NIfTI-1 header holds scl_slope."""


def masks(root: Path) -> tuple[Path, Path, np.ndarray]:
    """Folders for truth and prediction, and a truth of two organs that lies in the first."""
    truth = np.zeros((12, 11, 10), dtype=np.uint8)
    truth[2:6, 2:6, 2:6], truth[7:10, 7:10, 7:9] = 1, 2
    for name in ("truth", "prediction"):
        (root / name).mkdir()
    save(root / "truth/a.nii", truth)
    described = {"labels": {"background": 0, "liver": 1, "spleen": 2}}
    (root / "truth/dataset.json").write_text(json.dumps(described))
    return root / "truth", root / "prediction", truth


def save(path: Path, values: np.ndarray, *, slope: float | None = None) -> None:
    content = bytearray(nibabel.Nifti1Image(values, AFFINE).to_bytes())
    if slope is not None:
        struct.pack_into("<ff", content, SLOPE_AT, slope, 0.0)
    path.write_bytes(content)


def dice(truth: Path, prediction: Path, output: Path) -> list[float]:
    found = evaluate_folders(truth, prediction, output=output).evaluation
    return [found.values(organ, "dice")["a"] for organ in found.organs]


@pytest.mark.slow
@pytest.mark.parametrize("described", [True, False])
def test_a_scaled_and_a_resampled_mask_score_like_the_plain_one(tmp_path, described):
    truth, prediction, labels = masks(tmp_path)
    if not described:
        (truth / "dataset.json").unlink()
    for values, slope in (
        (labels, None),
        ((labels * 2).astype(np.int16), 0.5),
        (labels.astype(np.float32) * np.float32(0.99999994), None),
    ):
        save(prediction / "a.nii", values, slope=slope)
        assert dice(truth, prediction, tmp_path / "out") == [1, 1]


@pytest.mark.parametrize("value", [256, 257, 1.4])
@pytest.mark.parametrize("side", ["truth", "prediction"])
@pytest.mark.parametrize("described", [True, False])
def test_a_value_that_is_no_label_is_refused_not_scored_as_another(tmp_path, value, side, described):
    truth, prediction, labels = masks(tmp_path)
    if not described:
        (truth / "dataset.json").unlink()
    save(prediction / "a.nii", labels)
    save(tmp_path / side / "a.nii", np.where(labels == 1, np.float32(value), labels))
    with pytest.raises(InputError, match=f"found {value}"):
        evaluate_folders(truth, prediction, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
