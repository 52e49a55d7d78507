"""What folds say together: means by phase and organ, calibrations fitted on patients left out, their reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from agseg.measure.calibration import AS_IT_IS, Calibration, logit
from agseg.measure.reliability import BIN_ODDS, EDGES, Fit, Tally, chosen, curve, left_out
from agseg.workflows.prune_figure import require_matplotlib
from agseg.workflows.weights_eval import OrganScore

PatientOf = Callable[[str], str]
"""Whose scan it is."""


def organs_of(scores: Sequence[OrganScore]) -> list[str]:
    """In the order in which they come first."""
    return list(dict.fromkeys(score.organ for score in scores))


def by_patient(scores: Sequence[OrganScore], organ: str, patient_of: PatientOf) -> dict[str, Tally]:
    """An organ's tally per patient, all scans together; patients in whom nothing was found are left out."""
    found: dict[str, Tally] = {}
    for score in scores:
        if score.organ == organ and score.tally is not None and score.tally.total:
            patient = patient_of(score.case)
            found[patient] = found[patient] + score.tally if patient in found else score.tally
    return found


def means_table(scores: Sequence[OrganScore], patient_of: PatientOf) -> str:
    """Mean Dice / S2S (mm) / surface Dice by phase and organ over scans; over patients Dice, and the least (Markdown)."""
    organs = organs_of(scores)
    lines = [_row(["mean over", "scans", "patients", *organs]), _row(["---"] * (len(organs) + 3))]
    for phase in [*dict.fromkeys(score.phase for score in scores), "all scans"]:
        some = [score for score in scores if phase in (score.phase, "all scans")]
        cases = {score.case for score in some}
        cells = [_means([score for score in some if score.organ == organ]) for organ in organs]
        lines.append(_row([phase, str(len(cases)), str(len({patient_of(case) for case in cases})), *cells]))
    patients = {patient_of(score.case) for score in scores}
    cells = []
    for organ in organs:
        dice = [
            float(np.mean([s.dice for s in scores if s.organ == organ and patient_of(s.case) == patient]))
            for patient in sorted(patients)
            if any(s.organ == organ and patient_of(s.case) == patient for s in scores)
        ]
        cells.append(f"{np.mean(dice):.2f} ({min(dice):.2f})" if dice else "")
    lines.append(_row(["all patients, Dice (least)", "", str(len(patients)), *cells]))
    return "\n".join(lines)


def _means(scores: Sequence[OrganScore]) -> str:
    if not scores:
        return ""
    distances = [score.s2s_mm for score in scores if not math.isnan(score.s2s_mm)]
    s2s = f"{np.mean(distances):.1f}" if distances else ""
    dice, surface = (float(np.mean([getattr(score, name) for score in scores])) for name in ("dice", "surface_dice"))
    return f"{dice:.2f} / {s2s} / {surface:.2f}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def calibrations_of(scores: Sequence[OrganScore], patient_of: PatientOf) -> dict[str, Fit]:
    """Each organ's calibration, where one is better than none on patients left out."""
    fits = {organ: chosen(by_patient(scores, organ, patient_of)) for organ in organs_of(scores)}
    return {organ: fit for organ, fit in fits.items() if fit is not None}


def _beyond(tallies: Mapping[str, Tally], fit: Fit | None) -> list[Calibration]:
    """For each patient the calibration that the others give, of the chosen form."""
    found = None if fit is None else left_out(tallies, shifted=fit.calibration.shift != 0)
    return [AS_IT_IS] * len(tallies) if found is None else [*found.values()]


def calibration_table(scores: Sequence[OrganScore], patient_of: PatientOf) -> str:
    """Per organ: the calibration, loss and calibration error before and after on patients left out, sure and right (Markdown).

    The last two are the mean and the largest distance, over patients, of the mean probability to the part that is right.
    """
    heads = ["organ", "patients", "scale", "shift", "loss, left out", "calibration error, left out"]
    heads += ["mean probability", "right", "mean distance per patient", "largest"]
    lines, fits = [_row(heads), _row(["---"] * len(heads))], calibrations_of(scores, patient_of)
    for organ in organs_of(scores):
        tallies, fit = by_patient(scores, organ, patient_of), fits.get(organ)
        own, some = _beyond(tallies, fit), [*tallies.values()]
        apart = [
            [abs(t.mean(c) - t.share_right) for t, c in zip(some, cs, strict=True)] for cs in ([AS_IT_IS] * len(some), own)
        ]
        means = [np.mean([t.mean(c) for t, c in zip(some, cs, strict=True)]) for cs in ([AS_IT_IS] * len(some), own)]
        cells = [organ, str(len(some))]
        cells += (
            ["", "", ""]
            if fit is None
            else [f"{fit.calibration.scale:.3f}", f"{fit.calibration.shift:.3f}", _to(fit.before, fit.after)]
        )
        cells += [_to(curve(some).error, curve(some, own).error), _to(*map(float, means))]
        cells += [
            f"{np.mean([t.share_right for t in some]):.2f}",
            _to(*(float(np.mean(a)) for a in apart)),
            _to(*map(max, apart)),
        ]
        lines.append(_row(cells))
    return "\n".join(lines)


def _to(before: float, after: float) -> str:
    return f"{before:.3f} to {after:.3f}"


def wins_from_table(scores: Sequence[OrganScore], patient_of: PatientOf) -> str:
    """Per organ: mean Dice over patients if it won only from a higher winning probability on (Markdown)."""
    levels = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
    lines = [_row(["organ, Dice if it wins from", *("as it is" if not p else f"{p:g}" for p in levels)]), _row(["---"] * 9)]
    for organ in organs_of(scores):
        lines.append(_row([organ, *(f"{_dice_from(scores, organ, p, patient_of):.3f}" for p in levels)]))
    return "\n".join(lines)


def _dice_from(scores: Sequence[OrganScore], organ: str, level: float, patient_of: PatientOf) -> float:
    """Mean over patients of their scans' mean Dice, of voxels that are at least so sure."""
    least = -math.inf if level == 0 else float(logit(np.array(level)))
    of: dict[str, list[float]] = {}
    for score in scores:
        if score.organ == organ and score.tally is not None:
            stays = EDGES[:-1] + BIN_ODDS / 2 >= least
            right, found = int(score.tally.right[stays].sum()), int((score.tally.right + score.tally.wrong)[stays].sum())
            truth = score.truth_ml * score.tally.total / score.found_ml if score.found_ml else math.inf
            of.setdefault(patient_of(score.case), []).append(2 * right / (found + truth) if found else 0.0)
    return float(np.mean([np.mean(dice) for dice in of.values()])) if of else math.nan


def draw_reliability(path: Path, scores: Sequence[OrganScore], patient_of: PatientOf) -> None:
    """The reliability diagram of each organ, as the networks say it and calibrated by the other patients."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    organs, fits = organs_of(scores), calibrations_of(scores, patient_of)
    figure = Figure(figsize=(3 * len(organs), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for place, organ in enumerate(organs, start=1):
        tallies = by_patient(scores, organ, patient_of)
        own = _beyond(tallies, fits.get(organ))
        axes = figure.add_subplot(1, len(organs), place)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for said, calibration, mark in (("as the network says", AS_IT_IS, "o-"), ("calibrated, left out", own, "s--")):
            drawn = curve([*tallies.values()], calibration)
            filled = drawn.share >= 0.001
            axes.plot(drawn.sure[filled], drawn.right[filled], mark, markersize=4, label=f"{said}: {drawn.error:.3f}")
        axes.set(
            title=f"{organ}, {len(tallies)} patients", xlabel="winning probability", xlim=(0, 1), ylim=(0, 1), aspect="equal"
        )
        axes.legend(fontsize=7, loc="lower right")
    figure.axes[0].set_ylabel("part that is right by the labels")
    figure.savefig(path, dpi=100)
