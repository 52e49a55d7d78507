"""HU statistics of each organ, from one pass over mask and image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agseg.report import HuSpread
from agseg.slabs import slabs
from agseg.volume import HU_MAX, HU_MIN

PERCENTILES = (5, 25, 50, 75, 95)

_BINS = HU_MAX - HU_MIN + 1


def histograms(labels: NDArray[np.uint8], values: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.int64]:
    """Voxels per label and whole HU, int64 (largest label + 1, :data:`HU_MAX` - :data:`HU_MIN` + 1); fractions are rounded.

    Parameters
    ----------
    labels
        uint8 (i, j, k); 0 is not counted.
    values
        HU (i, j, k).
    """
    most = max((int(marked.max(initial=0)) for (marked,) in slabs(labels)), default=0)
    counts = np.zeros((most + 1) * _BINS, dtype=np.int64)
    for marked, image in slabs(labels, values):
        inside = marked > 0
        if inside.any():
            hu = np.clip(np.rint(image[inside]), HU_MIN, HU_MAX).astype(np.int64) - HU_MIN
            np.add.at(counts, marked[inside].astype(np.int64) * _BINS + hu, 1)
    return counts.reshape(most + 1, _BINS)


def spread(histogram: NDArray[np.int64]) -> HuSpread | None:
    """Standard deviation and percentiles of one row of :func:`histograms`; None for no voxel.

    A percentile is the smallest whole HU that at least so many percent of the voxels do not exceed.
    """
    count = int(histogram.sum())
    if count == 0:
        return None
    hu = np.arange(HU_MIN, HU_MAX + 1, dtype=np.float64)
    mean = float(histogram @ hu) / count
    sd = float(np.sqrt(max(0.0, float(histogram @ hu**2) / count - mean**2)))
    reached = np.cumsum(histogram)
    percentiles = {p: int(hu[np.searchsorted(reached, np.ceil(p / 100 * count))]) for p in PERCENTILES}
    return HuSpread(sd, percentiles)


def share_between(histogram: NDArray[np.int64], low_hu: float, high_hu: float) -> float:
    """Share of an organ's voxels with low <= HU <= high; 0 for no voxel."""
    count = int(histogram.sum())
    first, last = int(np.ceil(max(low_hu, HU_MIN))) - HU_MIN, int(np.floor(min(high_hu, HU_MAX))) - HU_MIN
    return float(histogram[max(first, 0) : last + 1].sum()) / count if count and last >= first else 0.0
