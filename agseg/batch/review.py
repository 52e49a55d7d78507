"""Which results a person should look at first, and why. Rules for looking twice, not findings."""

from __future__ import annotations

from dataclasses import dataclass

from agseg.labels import Label
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport

__all__ = [
    "LOW_PROBABILITY",
    "MANY_COMPONENTS",
    "MEAN_VOLUME_ML",
    "PLAUSIBLE_FACTOR",
    "ReviewItem",
    "plausible_volume_ml",
    "review",
    "review_list",
]

MEAN_VOLUME_ML = {
    "liver": (1411.0, 1710.0),
    "spleen": (179.8, 238.4),
    "kidney_left": (156.5, 193.1),
    "kidney_right": (156.5, 193.1),
    "pancreas": (64.4, 87.4),
}
"""Mean organ volume of women and of men (ml), outlined by hand on 149 adult abdominal CTs.

Source: Geraghty et al., Normal organ volume assessment from abdominal CT, Abdominal Imaging 29 (4), 2004, 482-490. Hollow
organs (stomach, duodenum, gallbladder, oesophagus) are as large as they are full: their volume is not judged.
"""

PLAUSIBLE_FACTOR = 3.0
"""A volume below a third of the women's mean or above three times the men's is implausible.

Our choice, wide on purpose: disease and body size move organs by a factor of two, a failed segmentation by more.
"""

LOW_PROBABILITY = 0.7
"""Mean winning probability over an organ's voxels below which the network was undecided. Our choice, not calibrated."""

MANY_COMPONENTS = 5
"""An organ in more pieces than this (26-connected, before any clean-up) was not found as one."""

_CUT_OFF = "cut off by the field of view"
_IMPLAUSIBLE = "implausible volume"
_LOW_MARGIN = "low margin"
_COMPONENTS = "many components"

_WEIGHT = {_IMPLAUSIBLE: 8, _LOW_MARGIN: 4, _COMPONENTS: 2, _CUT_OFF: 1}
"""How bad: each outweighs all below it together, so that the worst reason decides and the others break ties."""


def plausible_volume_ml(name: str) -> tuple[float, float] | None:
    """Smallest and largest plausible volume of an organ (ml), or None where none is known."""
    means = MEAN_VOLUME_ML.get(name)
    return None if means is None else (min(means) / PLAUSIBLE_FACTOR, max(means) * PLAUSIBLE_FACTOR)


def review(found: Measurement, *, probability: float | None = None, components: int = 0) -> tuple[str, ...]:
    """Reasons to look twice at one organ, worst first; none for an organ that is absent.

    Parameters
    ----------
    found
        The organ.
    probability
        Mean winning probability over its voxels, 0 to 1.
    components
        In how many pieces it was found.
    """
    if found.volume_ml is None:
        return ()
    reasons = []
    cut_off = found.status is OrganStatus.CUT_OFF
    limits = plausible_volume_ml(found.name)
    if limits is not None and (found.volume_ml > limits[1] or (found.volume_ml < limits[0] and not cut_off)):
        reasons.append(f"{_IMPLAUSIBLE} ({found.volume_ml:.3g} ml, plausible {limits[0]:.0f} to {limits[1]:.0f} ml)")
    if probability is not None and probability < LOW_PROBABILITY:
        reasons.append(f"{_LOW_MARGIN} (mean probability {probability:.2f}, below {LOW_PROBABILITY:g})")
    if components > MANY_COMPONENTS:
        reasons.append(f"{_COMPONENTS} ({components} pieces)")
    if cut_off:
        reasons.append(_CUT_OFF)
    return tuple(reasons)


@dataclass(frozen=True)
class ReviewItem:
    """One study of the review list.

    Parameters
    ----------
    study
        Its record.
    reasons
        ``organ: reason``, worst first.
    score
        Larger is worse.
    """

    study: StudyReport
    reasons: tuple[str, ...]
    score: int


def review_list(report: BatchReport) -> tuple[ReviewItem, ...]:
    """The studies with a reason to look twice, worst first; equally bad ones in the order of their names."""
    items = []
    for study in report.studies:
        reasons = [(Label(1, organ.name).title, reason) for organ in study.organs for reason in organ.review]
        if reasons:
            reasons.sort(key=lambda pair: -_weight(pair[1]))
            score = sum(_weight(reason) for _, reason in reasons) + 100 * _weight(reasons[0][1])
            items.append(ReviewItem(study, tuple(f"{organ}: {reason}" for organ, reason in reasons), score))
    return tuple(sorted(items, key=lambda item: (-item.score, item.study.input)))


def _weight(reason: str) -> int:
    return next((weight for start, weight in _WEIGHT.items() if reason.startswith(start)), 1)
