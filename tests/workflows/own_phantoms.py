"""A raw nnU-Net folder of ellipsoids: a liver with tumours and cysts, in CT and in a second, functional channel."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

__all__ = ["AFFINE", "case_labels", "write_raw"]

SHAPE = (28, 24, 16)
AFFINE = np.diag([-6.0, -6.0, 8.0, 1.0])
LABELS = {"background": 0, "liver": 1, "tumour": 2, "cyst": 3}


def _ball(shape: tuple[int, ...], centre: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return np.asarray((((grid - centre) / radii) ** 2).sum(axis=-1) <= 1)


def case_labels(number: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """Label map of a case; every third has no cyst."""
    rng = np.random.default_rng(number)
    size = np.array(shape, dtype=float)
    labels = np.zeros(shape, dtype=np.uint8)
    centre = size * 0.5 + rng.uniform(-1, 1, 3)
    labels[_ball(shape, centre, size * 0.33)] = 1
    labels[_ball(shape, centre + size * [0.12, 0, 0], size * 0.13)] = 2
    if number % 3:
        labels[_ball(shape, centre - size * [0.12, 0, 0], size * 0.12)] = 3
    return labels


def write_raw(root: Path, *, cases: int = 12, channels: tuple[str, ...] = ("CT",), described: bool = False) -> Path:
    """``imagesTr`` and ``labelsTr`` as nnU-Net wants them, and ``dataset.json`` if asked for."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(cases):
        labels, rng = case_labels(number), np.random.default_rng(1000 + number)
        looks = {
            "CT": np.array([-80.0, 90.0, 160.0, 10.0]),
            "PET": np.array([0.5, 1.0, 6.0, 0.2]),
            "T1": np.array([50.0, 300.0, 120.0, 500.0]),
        }
        for channel, name in enumerate(channels):
            look = looks[name]
            values = look[labels] + rng.normal(0, np.ptp(look) * 0.04, labels.shape)
            values = values.astype(np.int16) if name == "CT" else values.astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), root / f"imagesTr/lesion_{number:03d}_{channel:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, AFFINE), root / f"labelsTr/lesion_{number:03d}.nii.gz")
    if described:
        names = {str(number): name for number, name in enumerate(channels)}
        content = {"channel_names": names, "labels": LABELS, "numTraining": cases, "file_ending": ".nii.gz"}
        (root / "dataset.json").write_text(json.dumps(content))
    return root
