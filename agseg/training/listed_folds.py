"""Folds by patient over the scans of a packaged network: each fold's network is scored on patients that no step of it has seen.

What comes out measures the procedure, not the packaged file: that one has learned from nearly everybody.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from agseg.binding import load
from agseg.errors import FieldError, RecipeError
from agseg.io.resources import resource_path
from agseg.training.listing import OpenCase
from agseg.training.recipe import Recipe, StartFrom, find_recipe
from agseg.training.settings import LoopSettings
from agseg.training.synthesis import Phase


@dataclass(frozen=True)
class ListedFolds:
    """How a packaged network's scans are dealt into folds, and how a fold's network is trained.

    Patients that the start has learned from make up the first fold, whose network begins with random weights; the others are
    dealt by seed. So no network has seen a patient of its fold, in any earlier training either.

    Parameters
    ----------
    recipe
        Name of the recipe whose list of scans, trained on and left out, is dealt.
    start
        Name of packaged weights, and of their recipe, that the other folds begin with.
    folds, seed
        How many folds, and by which seed.
    loop, fresh
        Optimisation from the start, and from random weights.
    patients
        Scans of each patient who has several; any other scan is a patient of its own.
    kept
        Scans that every fold trains on, because they show no organ. Label maps without a scan stay too.
    phases
        When each scan was taken, where that is known.
    """

    recipe: str
    start: str
    folds: int
    seed: int
    loop: LoopSettings
    fresh: LoopSettings
    patients: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    phases: dict[str, Phase] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise FieldError("folds", "at least two, or nothing is left to learn from", value=self.folds)
        several = [scan for scans in self.patients.values() for scan in scans]
        if doubled := sorted({scan for scan in several if several.count(scan) > 1}):
            raise FieldError("patients", "a scan belongs to one patient", value=doubled)

    def patient_of(self, scan: str) -> str:
        """Whose scan it is."""
        return next((patient for patient, scans in self.patients.items() if scan in scans), scan)

    def recipes(self) -> tuple[Recipe, ...]:
        """One recipe per fold: the scans of its patients are left out, all others are learned from.

        Raises
        ------
        RecipeError
            If the plan names a scan that the recipe does not list, or there are fewer patients than folds.
        """
        recipe = find_recipe(self.recipe)
        everything = tuple(
            replace(case, phase=self.phases.get(case.id, case.phase)) for case in (*recipe.cases, *recipe.left_out)
        )
        self._check_scans(everything)
        seen = {self.patient_of(scan) for scan in _learned_by(find_recipe(self.start))}
        dealt = [case for case in everything if case.image is not None and case.id not in self.kept]
        folds = self._deal([self.patient_of(case.id) for case in dealt], seen)
        return tuple(
            self._recipe_of(recipe, everything, number, fold, fresh=bool(seen & fold)) for number, fold in enumerate(folds)
        )

    def _check_scans(self, everything: tuple[OpenCase, ...]) -> None:
        named = {*self.kept, *self.phases, *(scan for scans in self.patients.values() for scan in scans)}
        if unknown := sorted(named - {case.id for case in everything}):
            raise RecipeError("the folds name scans that the recipe does not list", value=unknown, expected=self.recipe)

    def _deal(self, patients: list[str], seen: set[str]) -> list[set[str]]:
        """The patients of each fold; those that the start has seen are the first."""
        first = seen.intersection(patients)
        rest = sorted(set(patients) - first)
        count = self.folds - bool(first)
        if len(rest) < count:
            raise RecipeError("fewer patients than folds", value=len(rest), expected=f"at least {count}")
        random.Random(self.seed).shuffle(rest)  # noqa: S311 - repeatable, not secret
        return [*([first] if first else []), *(set(rest[number::count]) for number in range(count))]

    def _recipe_of(
        self, recipe: Recipe, everything: tuple[OpenCase, ...], number: int, fold: set[str], *, fresh: bool
    ) -> Recipe:
        def out(case: OpenCase) -> bool:
            return case.image is not None and self.patient_of(case.id) in fold

        return replace(
            recipe,
            name=f"{self.recipe}-fold-{number}",
            title=f"{recipe.title}: fold {number} of {self.folds}, without {', '.join(sorted(fold))}",
            start=None if fresh else StartFrom(self.start),
            cases=tuple(case for case in everything if not out(case)),
            left_out=tuple(case for case in everything if out(case)),
            loop=self.fresh if fresh else self.loop,
        )


def _learned_by(recipe: Recipe) -> set[str]:
    """Ids of all scans that a recipe's network has learned from, in its starts' trainings too."""
    own = {case.id for case in recipe.cases}
    return own if recipe.start is None else own | _learned_by(find_recipe(recipe.start.recipe))


def find_plan(name: str) -> ListedFolds:
    """The plan of a packaged network in ``train/folds``.

    Raises
    ------
    RecipeError
        If there is none, or it does not hold together; with the line.
    """
    path = resource_path("train/folds") / f"{name}.yaml"
    if not path.exists():
        raise RecipeError("no folds of this network", value=name, expected=", ".join(plan_names()))
    return load(path, ListedFolds)


def plan_names() -> tuple[str, ...]:
    """Every plan in ``train/folds``."""
    return tuple(sorted(path.stem for path in resource_path("train/folds").glob("*.yaml")))
