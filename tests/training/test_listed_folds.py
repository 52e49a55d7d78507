"""Folds by patient over a listed recipe: nobody is scored by a network that learned from them, now or before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agseg.errors import FieldError, RecipeError
from agseg.training.listed_folds import ListedFolds, find_plan, plan_names
from agseg.training.recipe import find_recipe

PLANS = plan_names()


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> ListedFolds:
    return find_plan(request.param)


def test_every_patient_is_left_out_by_exactly_one_fold(plan: ListedFolds) -> None:
    recipe, folds = find_recipe(plan.recipe), plan.recipes()
    assert len(folds) == plan.folds
    out = [case.id for fold in folds for case in fold.left_out]
    real = [case.id for case in (*recipe.cases, *recipe.left_out) if case.image is not None and case.id not in plan.kept]
    assert sorted(out) == sorted(real)
    homes = {plan.patient_of(case.id): fold.name for fold in folds for case in fold.left_out}
    assert all(homes[plan.patient_of(case.id)] == fold.name for fold in folds for case in fold.left_out)


def test_no_fold_learns_from_its_patients_here_or_before(plan: ListedFolds) -> None:
    everything = {case.id for case in (*find_recipe(plan.recipe).cases, *find_recipe(plan.recipe).left_out)}
    for fold in plan.recipes():
        learned, left = {case.id for case in fold.cases}, {case.id for case in fold.left_out}
        assert learned | left == everything
        if fold.start is not None:
            learned |= {case.id for case in find_recipe(fold.start.recipe).cases}
        assert not {plan.patient_of(scan) for scan in learned} & {plan.patient_of(scan) for scan in left}


def test_what_shows_no_organ_and_what_has_no_scan_stays(plan: ListedFolds) -> None:
    for fold in plan.recipes():
        learned = {case.id for case in fold.cases}
        assert {*plan.kept, *(case.id for case in find_recipe(plan.recipe).cases if case.image is None)} <= learned


def test_all_else_is_the_packaged_recipe_and_another_seed_deals_anew() -> None:
    plan = find_plan("attention-unet-3mm")
    recipe, dealt = find_recipe(plan.recipe), plan.recipes()
    for fold in dealt:
        as_packaged = replace(fold, name=recipe.name, title=recipe.title, start=recipe.start, loop=recipe.loop)
        assert replace(as_packaged, cases=recipe.cases, left_out=recipe.left_out) == recipe
    assert [fold.left_out for fold in dealt] == [fold.left_out for fold in plan.recipes()]
    assert [fold.left_out for fold in dealt] != [fold.left_out for fold in replace(plan, seed=plan.seed + 1).recipes()]


def test_folds_that_cannot_be_are_refused() -> None:
    plan = find_plan("attention-unet-3mm")
    with pytest.raises(FieldError, match="at least two"):
        replace(plan, folds=1)
    with pytest.raises(FieldError, match="one patient"):
        replace(plan, patients={"a": ("hcc_tace_006_portal",), "b": ("hcc_tace_006_portal",)})
    with pytest.raises(RecipeError, match="does not list"):
        replace(plan, kept=("nobody",)).recipes()
    with pytest.raises(RecipeError, match="fewer patients"):
        replace(plan, folds=40).recipes()
    with pytest.raises(RecipeError, match="no folds"):
        find_plan("nothing")
