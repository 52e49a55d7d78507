"""How far label maps agree: ``python benchmarks/agreement.py REFERENCE.nii.gz OTHER.nii.gz ...``."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def compare(reference: Path, other: Path) -> tuple[float, list[float]]:
    """Fraction of voxels with the same label, and Dice per label (background first; 1 where both have none)."""
    a, b = (np.asanyarray(nib.load(path).dataobj).astype(np.uint8) for path in (reference, other))
    if a.shape != b.shape:
        raise SystemExit(f"shapes differ: {a.shape} and {b.shape}")
    n = int(max(a.max(), b.max())) + 1
    counts = np.bincount(a.ravel("F").astype(np.intp) * n + b.ravel("F"), minlength=n * n).reshape(n, n)
    both, either = np.diag(counts), counts.sum(0) + counts.sum(1)
    dice = [float(2 * same / size) if size else 1.0 for same, size in zip(both, either, strict=True)]
    return float(both.sum() / counts.sum()), dice


if __name__ == "__main__":
    for name in sys.argv[2:]:
        agreement, dice = compare(Path(sys.argv[1]), Path(name))
        print(name, f"agreement {agreement:.5f}", "dice", [round(value, 4) for value in dice])
