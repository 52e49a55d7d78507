"""How sure a network was, as a number that a person reads: winning probabilities, calibrated where its weights say how."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agseg.measure.calibration import MOST_CERTAIN, Calibration

Calibrations = Mapping[int, Calibration]
"""By class index."""


def calibrated(label: Tensor, best: Tensor, calibrations: Calibrations) -> tuple[Tensor, Tensor]:
    """Classes (int64) and calibrated winning probabilities (float64) of a box, both (voxels,).

    On the CPU voxels of the background may be left out, which are most; on a GPU that would wait for it.
    """
    classes, values = label.flatten(), best.flatten()
    if calibrations and label.device.type == "cpu":
        (won,) = classes.nonzero(as_tuple=True)
        classes, values = classes[won], values[won]
    classes, values = classes.to(torch.int64), values.double()
    if not calibrations:
        return classes, values
    odds = torch.logit(values, eps=MOST_CERTAIN)
    table = torch.tensor([[1.0, 0.0, 0.0]] * 256, dtype=torch.float64)
    for index, calibration in calibrations.items():
        table[index] = torch.tensor([calibration.scale, calibration.shift, 1.0], dtype=torch.float64)
    scale, shift, known = table.to(label.device).T
    return classes, torch.where(known[classes] > 0, torch.sigmoid(scale[classes] * odds + shift[classes]), values)
