"""Folds of one's own data: every case once, labels as common as in the whole, patients together, the same for the same seed."""

from __future__ import annotations

import pytest

from agseg.errors import RecipeError
from agseg.training.folds import FoldPlan, stratified_folds

CASES = {f"case{n:02d}": ("liver", "tumour") if n % 3 == 0 else ("liver",) for n in range(23)}


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_case_is_tested_once_and_labels_are_spread(folds: int) -> None:
    made = stratified_folds(CASES, FoldPlan(folds, validation=0.2))
    assert sorted(case for split in made for case in split.test) == sorted(CASES)
    sizes = [len(split.test) for split in made]
    rare = [sum("tumour" in CASES[case] for case in split.test) for split in made]
    assert max(sizes) - min(sizes) <= 1
    assert max(rare) - min(rare) <= 1
    for split in made:
        assert len({*split.train, *split.validation, *split.test}) == len(CASES)
        assert split.validation


def test_a_held_out_test_set_is_in_no_fold() -> None:
    made = stratified_folds(CASES, FoldPlan(4, test=0.2))
    held = {split.test for split in made}
    assert len(held) == 1
    (test,) = held
    assert len(test) == round(0.2 * len(CASES))
    assert any("tumour" in CASES[case] for case in test)
    validated = [case for split in made for case in split.validation]
    assert sorted(validated) == sorted(set(CASES) - set(test))


def test_a_patient_is_never_cut() -> None:
    patients = {case: f"patient{int(case[4:]) // 2}" for case in CASES}
    for split in stratified_folds(CASES, FoldPlan(3), group_of=patients):
        sides = [{patients[case] for case in side} for side in (split.train, split.validation, split.test)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_the_seed_alone_decides() -> None:
    assert stratified_folds(CASES, FoldPlan(3)) == stratified_folds(dict(reversed(CASES.items())), FoldPlan(3))
    assert stratified_folds(CASES, FoldPlan(3)) != stratified_folds(CASES, FoldPlan(3, seed=1))


def test_without_validation_nothing_is_set_aside() -> None:
    assert all(not split.validation for split in stratified_folds(CASES, FoldPlan(3, validation=0)))


@pytest.mark.parametrize("plan", [{"folds": 1}, {"folds": 3, "test": 1.0}, {"folds": 3, "validation": -0.1}])
def test_plans_that_cut_nothing_are_refused(plan: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        FoldPlan(**plan)  # type: ignore[arg-type]


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(RecipeError, match="fewer patients"):
        stratified_folds({"a": ("liver",), "b": ("liver",)}, FoldPlan(3))
