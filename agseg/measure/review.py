"""Which results a person should look at first, and why. Rules for looking twice, not findings.

Each rule compares an organ with what its kind looks like in any patient: where it lies, how large it is, how dense. What the
rules catch and how often they are wrong is measured (``benchmarks/review_faults.py``, docs/hospital.md). That an organ is cut
off by the scan's range is a fact about the scan, and no reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agseg.labels import Label
from agseg.measure.agreement import Agreement
from agseg.measure.evidence import PATCH_HU, Evidence
from agseg.measure.usual import AGREE_DICE, PAIRS, USUAL, USUALLY_AGREE
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport
from agseg.volume import FAT_HU, OTHER_HU

LOW_PROBABILITY = 0.7
"""Mean winning probability over an organ's voxels below which the network was undecided. Our choice."""

LOW_CALIBRATED = {"pancreas": 0.5}
"""The same of a calibrated probability, which is the part that is right, for organs of which much is wrong as a rule."""

MANY_COMPONENTS = 20
"""An organ in more pieces than this (26-connected, before any clean-up) was not found as one."""

TRACE_ML = 1.0
"""Less than this is a trace of an organ."""

WRONG_SIDE_MM = 15.0
"""How far on the other side of the body's middle the centre of an organ that has a side must lie."""

PAIR_HU = 40.0
"""How far apart the medians of a left and a right organ may lie (HU)."""

PAIR_RATIO = 0.5
"""The smaller of a left and a right organ has at least so much of the larger one's volume."""

SEEN_ML = 5.0
"""What another network finds of an organ that is absent counts from this volume on."""

_SIDE, _SECOND, _FOREIGN, _UNEVEN, _VOLUME, _SHORT, _ABSENT, _PAIR, _PIECE, _MARGIN, _TRACE, _COMPONENTS = REASONS = (
    "wrong side", "networks disagree", "holds fat or air", "uneven density", "implausible volume", "implausible extent",
    "absent beside its neighbours", "unlike its other side", "in two parts", "low margin", "a trace", "many components",
)  # fmt: skip
"""How a reason begins, worst first: each outweighs all behind it together, and those decide between equals."""

_WEIGHT = {reason: 2 ** (len(REASONS) - 1 - place) for place, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class SecondLook:
    """What another network made of a study.

    Parameters
    ----------
    weights
        Id of its weights.
    organs
        How far its masks agree with the result, by name.
    """

    weights: str
    organs: Mapping[str, Agreement]


def reviews(
    measured: Sequence[Measurement],
    evidence: Mapping[str, Evidence],
    *,
    probability: Mapping[str, float],
    components: Mapping[str, int],
    calibrated: Collection[str] = (),
    second: SecondLook | None = None,
) -> dict[str, tuple[str, ...]]:
    """Reasons to look twice at each organ of a study, worst first.

    Parameters
    ----------
    measured
        All organs of the study.
    evidence
        Of those that have a voxel (:func:`agseg.measure.evidence.collect`).
    probability
        Mean winning probability over an organ's voxels, 0 to 1, as far as it is known.
    components
        In how many pieces an organ was found, as far as it is known.
    calibrated
        Organs whose probability is a calibrated one.
    second
        What another network made of the same organs, where one took a look.
    """
    by_name = {found.name: found for found in measured}
    return {
        found.name: tuple(
            sorted(
                (
                    *review(
                        found,
                        evidence.get(found.name),
                        probability=probability.get(found.name),
                        components=components.get(found.name, 0),
                        calibrated=found.name in calibrated,
                    ),
                    *_beside(found, by_name, evidence),
                    *(() if second is None else _compared(found, second)),
                ),
                key=lambda reason: -_weight(reason),
            )
        )
        for found in measured
    }


def review(
    found: Measurement,
    seen: Evidence | None = None,
    *,
    probability: float | None = None,
    components: int = 0,
    calibrated: bool = False,
) -> tuple[str, ...]:
    """Reasons to look twice at one organ by itself, worst first; none for one that is absent."""
    if found.volume_ml is None:
        return ()
    reasons = [*_of_shape(found, seen), *([] if seen is None else _of_density(found.name, seen))]
    least = LOW_CALIBRATED.get(found.name, LOW_PROBABILITY) if calibrated else LOW_PROBABILITY
    if probability is not None and probability < least:
        reasons.append(f"{_MARGIN} (mean probability {probability:.2f}, below {least:g})")
    if found.volume_ml < TRACE_ML:
        reasons.append(f"{_TRACE} ({found.volume_ml:.2f} ml)")
    if components > MANY_COMPONENTS:
        reasons.append(f"{_COMPONENTS} ({components} pieces)")
    return tuple(sorted(reasons, key=lambda reason: -_weight(reason)))


def _of_shape(found: Measurement, seen: Evidence | None) -> Iterator[str]:
    """Where it lies, how large it is, and whether it is one piece."""
    usual, volume_ml = USUAL.get(found.name), found.volume_ml
    if usual is None or volume_ml is None:
        return
    low, high = usual.volume_ml
    cut_off = found.status is OrganStatus.CUT_OFF
    if volume_ml > high or (volume_ml < low and not cut_off):
        yield f"{_VOLUME} ({_ml(volume_ml)}, plausible {low:g} to {high:g} ml)"
    if seen is None:
        return
    if usual.side and seen.from_midline_mm * usual.side < -WRONG_SIDE_MM:
        lies = "right" if seen.from_midline_mm > 0 else "left"
        yield f"{_SIDE} (its centre lies {abs(seen.from_midline_mm):.0f} mm to the {lies} of the body's middle)"
    too_short = [
        f"{extent:.0f} mm from {said}, usually at least {least:g} mm"
        for extent, least, said in zip(
            seen.extent_mm, usual.least_mm, ("left to right", "front to back", "feet to head"), strict=True
        )
        if least and extent < least
    ]
    # What a scan of a few centimetres shows of an organ, a pole say, is narrow too: a fact about the scan, in all directions.
    if too_short and not any(seen.cut):
        yield f"{_SHORT} ({'; '.join(too_short)})"
    if usual.is_one_piece and seen.second_piece > usual.second_piece:
        yield f"{_PIECE} (the second has {100 * seen.second_piece:.0f} % of the first)"


def _of_density(name: str, seen: Evidence) -> Iterator[str]:
    usual = USUAL.get(name)
    if usual is None or seen.median_hu is None:
        return
    if seen.fat_share > usual.fat_share:
        found, most = _percent(seen.fat_share, usual.fat_share)
        yield f"{_FOREIGN} ({found} of its voxels are below {FAT_HU:g} HU, usually at most {most})"
    if seen.other_share > usual.other_share:
        found, most = _percent(seen.other_share, usual.other_share)
        yield f"{_UNEVEN} ({found} of its voxels are more than {OTHER_HU:g} HU from its median, usually at most {most})"
    elif seen.patch_share > usual.patch_share:
        found, most = _percent(seen.patch_share, usual.patch_share)
        yield f"{_UNEVEN} ({found} of its patches are more than {PATCH_HU:g} HU from its median, usually at most {most})"


def _percent(share: float, most: float) -> tuple[str, str]:
    """A share and the largest usual one, with so many digits that the one is seen to be larger."""
    digits = next((n for n in range(4) if round(100 * share, n) > round(100 * most, n)), 4)
    return f"{100 * share:.{digits}f} %", f"{100 * most:g} %"


def _beside(found: Measurement, all_found: Mapping[str, Measurement], evidence: Mapping[str, Evidence]) -> Iterator[str]:
    """What its neighbours and its other side say."""
    usual = USUAL.get(found.name)
    if usual is None:
        return
    if found.status is OrganStatus.ABSENT:
        near = [name for name in usual.neighbours if _is_shown(all_found.get(name))]
        if usual.neighbours and len(near) == len(usual.neighbours):
            yield f"{_ABSENT} ({', '.join(Label(1, name).title for name in near)} found)"
        return
    other = all_found.get(PAIRS.get(found.name, ""))
    if other is None or other.volume_ml is None or found.volume_ml is None:
        return
    mine, its = evidence.get(found.name), evidence.get(other.name)
    if mine is not None and its is not None and mine.median_hu is not None and its.median_hu is not None:
        apart = abs(mine.median_hu - its.median_hu)
        if apart > PAIR_HU:
            yield f"{_PAIR} (their median densities are {apart:.0f} HU apart, usually at most {PAIR_HU:g} HU)"
            return
    whole = OrganStatus.CUT_OFF not in (found.status, other.status)
    if whole and found.volume_ml < PAIR_RATIO * other.volume_ml:
        yield f"{_PAIR} ({found.volume_ml:.0f} ml, the other {other.volume_ml:.0f} ml)"


def _compared(found: Measurement, second: SecondLook) -> Iterator[str]:
    """What another network says."""
    seen = second.organs.get(found.name)
    if seen is None or seen.dice is None:
        return
    if found.volume_ml is None:
        if seen.other_ml >= SEEN_ML:
            yield f"{_SECOND} ({second.weights} finds {_ml(seen.other_ml)} of it)"
        return
    usual = AGREE_DICE.get(found.name, USUALLY_AGREE)
    if seen.dice >= usual:
        return
    if seen.other_ml < TRACE_ML:
        yield f"{_SECOND} ({second.weights} finds {f'less than {TRACE_ML:g} ml' if seen.other_ml else 'nothing'} of it)"
    else:
        finds = f"{second.weights} finds {_ml(seen.other_ml)}"
        yield f"{_SECOND} ({finds}, Dice of the two {seen.dice:.2f}, usually at least {usual:g})"


def _is_shown(found: Measurement | None) -> bool:
    """Whether the scan shows so much of an organ that its neighbours must be there: whole, or as much as a small one has."""
    if found is None or found.volume_ml is None:
        return False
    return found.status is not OrganStatus.CUT_OFF or found.volume_ml >= USUAL[found.name].volume_ml[0]


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
        Weight of the worst reason, and of all of them; larger is worse.
    """

    study: StudyReport
    reasons: tuple[str, ...]
    score: tuple[int, int]


def review_list(report: BatchReport) -> tuple[ReviewItem, ...]:
    """The studies with a reason to look twice, worst first; equally bad ones in the order of their names."""
    items = []
    for study in report.studies:
        named = ((Label(1, organ.name).title, reason) for organ in study.organs for reason in organ.review)
        # Records of before have facts among their reasons (that an organ is cut off): they have no weight.
        reasons = [(organ, reason) for organ, reason in named if _weight(reason)]
        if reasons:
            reasons.sort(key=lambda pair: -_weight(pair[1]))
            weights = [_weight(reason) for _, reason in reasons]
            score = (weights[0], sum(weights))
            items.append(ReviewItem(study, tuple(f"{organ}: {reason}" for organ, reason in reasons), score))
    return tuple(sorted(items, key=lambda item: (-item.score[0], -item.score[1], item.study.input)))


def _ml(volume_ml: float) -> str:
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.1f} ml"


def _weight(reason: str) -> int:
    return next((weight for start, weight in _WEIGHT.items() if reason.startswith(start)), 0)
