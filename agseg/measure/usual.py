"""What an adult's organs usually are on CT, as far as the review list's rules need it.

Volumes: from the mean of women and of men in Geraghty et al., Normal organ volume assessment from abdominal CT, Abdominal
Imaging 29 (4), 2004, 482-490 (149 adults): half of the women's to twice the men's for liver and kidneys, a third to three times
for the spleen, two fifths to two and a half times for the pancreas, which vary more.

All other limits are our choice, made with the label maps of ``train/labels`` in view, with room beyond the widest of them:
``benchmarks/review_faults.py`` measures what they are worth. Hollow organs are as large as they are full: nothing is known
here of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEAN_VOLUME_ML = {
    "liver": (1411.0, 1710.0),
    "spleen": (179.8, 238.4),
    "kidney_left": (156.5, 193.1),
    "kidney_right": (156.5, 193.1),
    "pancreas": (64.4, 87.4),
}
"""Mean organ volume of women and of men (ml). Source: Geraghty 2004, as above."""

PAIRS: Mapping[str, str] = {"kidney_left": "kidney_right", "kidney_right": "kidney_left"}
"""Left and right organs that are much alike."""


AGREE_DICE: Mapping[str, float] = {"pancreas": 0.5}
"""From which Dice on two networks' masks of an organ say the same; :data:`USUALLY_AGREE` for all others."""

USUALLY_AGREE = 0.8


@dataclass(frozen=True)
class Usual:
    """What one organ usually is.

    Parameters
    ----------
    volume_ml
        Smallest and largest plausible volume.
    side
        1 for the patient's right, -1 for the left, 0 for the middle.
    least_mm
        Smallest extent from left to right, front to back, feet to head; 0 where none is known.
    fat_share, other_share, patch_share
        Largest share of voxels that are thinner than parenchyma, of voxels and of patches that are far from the organ's
        median (as :class:`agseg.measure.evidence.Evidence`); 1 where nothing is known.
    neighbours
        Organs beside which it cannot be missing in a scan.
    second_piece
        Largest second piece, as a share of the first.
    """

    volume_ml: tuple[float, float]
    side: int
    least_mm: tuple[float, float, float]
    fat_share: float
    other_share: float
    patch_share: float
    neighbours: tuple[str, ...]
    second_piece: float = 0.05

    @property
    def is_one_piece(self) -> bool:
        """Whether it hangs together in the slices of a scan; a pancreas may seem not to."""
        return self.second_piece < 1


def _limits(name: str, low: float, high: float) -> tuple[float, float]:
    women, men = min(MEAN_VOLUME_ML[name]), max(MEAN_VOLUME_ML[name])
    return round(women * low), round(men * high)


_KIDNEY_MM = (40.0, 40.0, 70.0)

USUAL: Mapping[str, Usual] = {
    "liver": Usual(_limits("liver", 1 / 2, 2), 1, (135.0, 110.0, 110.0), 0.04, 0.2, 0.07, ("spleen", "kidney_right")),
    "spleen": Usual(_limits("spleen", 1 / 3, 3), -1, (60.0, 55.0, 65.0), 0.04, 0.2, 0.16, ("liver", "kidney_left")),
    "kidney_left": Usual(_limits("kidney_left", 1 / 2, 2), -1, _KIDNEY_MM, 0.1, 1.0, 1.0, ("kidney_right",)),
    "kidney_right": Usual(_limits("kidney_right", 1 / 2, 2), 1, _KIDNEY_MM, 0.1, 1.0, 1.0, ("kidney_left",)),
    "pancreas": Usual(
        _limits("pancreas", 2 / 5, 5 / 2), 0, (85.0, 30.0, 35.0), 0.3, 0.35, 1.0, ("liver", "spleen", "kidney_left"), 1.0
    ),
}
"""By name; other organs have no rules of their own."""
