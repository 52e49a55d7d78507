"""Cut a cohort of one's own: k folds in which every label is as common as in the whole, and a held-out test set if wanted.

Cases are grouped by the labels that occur in them; each group is ordered by a hash of (seed, id) and dealt out in turn, so that
the folds differ by at most one case in all, and by at most one in each group. Nothing depends on a random generator's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agseg.errors import RecipeError
from agseg.training.splits import Split

FEWEST_FOLDS = 2


@dataclass(frozen=True)
class FoldPlan:
    """How a cohort is cut.

    Parameters
    ----------
    folds
        Cross-validation: every case that is not held out is tested in exactly one fold.
    test
        Share of the cases that is held out of all folds; 0 holds out none. Then a fold's test side is this set, and the
        cases of the fold validate.
    validation
        Share of a fold's remaining cases that choose the best checkpoint; 0 takes the last one.
    seed
        Of the order.
    """

    folds: int = 5
    test: float = 0.0
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < FEWEST_FOLDS:
            raise RecipeError("cross-validation needs at least two folds", value=self.folds)
        if not 0 <= self.test < 1 or not 0 <= self.validation < 1:
            raise RecipeError("a share lies between 0 and 1", value=f"test {self.test}, validation {self.validation}")

    @property
    def name(self) -> str:
        """What the split is called in splits.json and recipes."""
        return f"{self.folds}-fold"


def stratified_folds(
    labels_of: Mapping[str, Iterable[str]], plan: FoldPlan, *, group_of: Mapping[str, str] | None = None
) -> tuple[Split, ...]:
    """One split per fold.

    Parameters
    ----------
    labels_of
        Case to the labels that occur in it.
    plan
        How to cut.
    group_of
        Case to patient, where some patients have several cases: those stay together. By default every case is its own.

    Raises
    ------
    RecipeError
        If there are fewer patients than folds, or nothing is left to train on.
    """
    patients: dict[str, list[str]] = {}
    for case in sorted(labels_of):
        patients.setdefault((group_of or {}).get(case, case), []).append(case)
    strata = {
        patient: tuple(sorted({label for case in cases for label in labels_of[case]})) for patient, cases in patients.items()
    }
    dealt = sorted(patients, key=lambda patient: (strata[patient], _hash(plan.seed, patient)))
    held = _every(dealt, round(len(dealt) * plan.test))
    rest = [patient for patient in dealt if patient not in set(held)]
    if len(rest) < plan.folds:
        raise RecipeError("fewer patients than folds", value=len(rest), expected=f"at least {plan.folds}")
    splits = []
    for fold in range(plan.folds):
        out = rest[fold :: plan.folds]
        others = [patient for patient in rest if patient not in set(out)]
        if held:
            sides: Sequence[Sequence[str]] = (others, out, held)
        else:
            chosen = _every(others, max(1, round(len(others) * plan.validation)) if plan.validation else 0)
            sides = ([patient for patient in others if patient not in set(chosen)], chosen, out)
        if not sides[0]:
            raise RecipeError("nothing is left to train on", value=len(patients), expected="more cases, or fewer folds")
        splits.append(Split(*(tuple(sorted(case for patient in side for case in patients[patient])) for side in sides)))
    return tuple(splits)


def _every(ordered: Sequence[str], count: int) -> list[str]:
    """So many, evenly spread over a list that is ordered by group: each group gives its share."""
    return [ordered[int((number + 0.5) * len(ordered) / count)] for number in range(count)]


def _hash(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()
