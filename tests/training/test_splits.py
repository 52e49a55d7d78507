import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.errors import RecipeError
from agseg.io.resources import resource_path
from agseg.training.datasets import dataset_names
from agseg.training.splits import Split, SplitRule, plan_of, read_split, split_cases, write_splits


def rule(**facts):
    return SplitRule(source="a test", **facts)


@given(
    count=st.integers(4, 60),
    test=st.integers(0, 9),
    validation=st.floats(0, 0.5),
    seed=st.integers(0, 5),
    folds=st.sampled_from([0, 2, 3]),
)
def test_every_case_stands_on_exactly_one_side(count, test, validation, seed, folds):
    ids = [f"case_{n}" for n in range(count)]
    for split in split_cases(
        ids, rule(test=test, of=10, validation=validation, seed=seed, folds=folds) if count > 10 else rule()
    ):
        assert sorted([*split.train, *split.validation, *split.test]) == sorted(ids)


def test_the_papers_numbers_come_out():
    (large,) = split_cases([f"ct150_{n:04d}" for n in range(150)], plan_of("ct150").splits["120-30"])
    assert (len(large.train) + len(large.validation), len(large.test)) == (120, 30)
    (small,) = split_cases([f"ct150_{n:04d}" for n in range(150)], plan_of("ct150").splits["30-120"])
    assert (len(small.train) + len(small.validation), len(small.test)) == (30, 120)
    for cases, test in ((82, 21), (80, 20)):
        (split,) = split_cases([f"c{n}" for n in range(cases)], plan_of("ct82").splits["61-21"])
        assert len(split.test) == test


def test_folds_test_every_case_once():
    ids = [f"c{n}" for n in range(80)]
    folds = split_cases(ids, plan_of("ct82").splits["5-fold"])
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold.test) == sorted(ids)


def test_the_order_of_the_list_does_not_matter_but_the_seed_does():
    ids = [f"c{n}" for n in range(30)]
    assert split_cases(ids, rule(test=1, of=3)) == split_cases(ids[::-1], rule(test=1, of=3))
    assert split_cases(ids, rule(test=1, of=3)) != split_cases(ids, rule(test=1, of=3, seed=1))


def test_groups_are_never_cut():
    ids = [f"s{subject}/f{frame}" for subject in range(12) for frame in range(5)]
    (split,) = split_cases(ids, rule(test=1, of=3, validation=0.3), group_of=lambda case: case.split("/")[0])
    sides = [{case.split("/")[0] for case in side} for side in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_a_case_on_two_sides_is_refused():
    with pytest.raises(RecipeError, match="two sides"):
        Split(train=("a", "b"), test=("b",))


class Compared(str):
    """A case's name that counts how often it is held against another."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other):
        Compared.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_doubled_cases_of_a_large_split_are_found_without_holding_each_against_all(monkeypatch):
    monkeypatch.setattr(Compared, "comparisons", 0)
    ids = tuple(Compared(f"frame_{n:06d}") for n in range(2_000))
    with pytest.raises(RecipeError, match=r"frame_000007.*frame_001999"):
        Split(train=ids, test=(Compared("frame_001999"), Compared("frame_000007")))
    assert Compared.comparisons < 10 * len(ids)


def test_written_splits_read_back(tmp_path):
    first, second = Split(("a",), ("b",), ("c",)), Split(("c",), ("a",), ("b",))
    write_splits(tmp_path, {"one": (first,), "two": (first, second)})
    assert read_split(tmp_path) == first
    assert read_split(tmp_path, "two", fold=1) == second
    with pytest.raises(RecipeError, match="no such split: found three, expected one of one, two") as refused:
        read_split(tmp_path, "three")
    assert "--set split=one" in refused.value.hint
    with pytest.raises(RecipeError, match="no such fold: found 2, expected 0 to 1"):
        read_split(tmp_path, "two", fold=2)


def test_nnunet_own_file_is_read_and_written_without_a_test_case(tmp_path):
    write_splits(tmp_path, {"one": (Split(("a",), ("b",), ("c",)),)})
    (fold,) = json.loads((tmp_path / "splits_final.json").read_text())
    assert fold == {"train": ["a"], "val": ["b"]}
    (tmp_path / "splits.json").unlink()
    assert read_split(tmp_path) == Split(("a",), ("b",))


def test_a_cohort_without_splits_says_so(tmp_path):
    with pytest.raises(RecipeError, match="no split file"):
        read_split(tmp_path)


def test_every_data_set_has_splits():
    assert {path.stem for path in resource_path("train/splits").glob("*.yaml")} == set(dataset_names())
    for name in dataset_names():
        assert plan_of(name).dataset == name
