"""Scores by hand, and their laws."""

import math

import numpy as np
import pytest

from agseg.errors import UsageError
from agseg.ultrasound.evaluation import draw_confusion, score_boxes, score_planes

CLASSES = ("a", "b", "c")


def test_a_confusion_worked_by_hand():
    scores = score_planes(["a", "a", "a", "b", "b", "b"], ["a", "a", "b", "b", "b", "a"], classes=CLASSES)
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.per_class["a"].precision == pytest.approx(2 / 3)
    assert scores.per_class["b"].recall == pytest.approx(2 / 3)
    # The class that occurs nowhere counts nowhere.
    assert math.isnan(scores.per_class["c"].f1)
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert scores.to_dict()["per_class"]["c"]["f1"] is None


def test_a_class_that_is_always_missed_counts_as_zero():
    scores = score_planes(["a", "b"], ["a", "a"], classes=CLASSES)
    assert scores.per_class["b"].f1 == 0
    assert scores.macro_recall == pytest.approx(0.5)
    assert scores.macro_precision == pytest.approx(0.25)


def test_perfect_and_renamed_predictions():
    truth = list("abcabcc")
    assert score_planes(truth, truth, classes=CLASSES).macro_f1 == 1
    renamed = dict(zip("abc", "cab", strict=True))
    one = score_planes(truth, list("abacbcc"), classes=CLASSES)
    other = score_planes([renamed[t] for t in truth], [renamed[t] for t in "abacbcc"], classes=CLASSES)
    assert one.macro_f1 == pytest.approx(other.macro_f1)
    assert one.accuracy == other.accuracy


def test_published_macro_scores_follow_from_the_published_classes():
    """Table 6 averages to the row of Table 5 (networks.md 6): the macro F1 is the mean of the classes' F1."""
    f1 = [0.985, 0.985, 0.958, 0.966, 0.962, 0.882, 0.975, 0.957, 0.957, 0.956, 0.708, 0.698, 0.929, 0.993]
    assert np.mean(f1) == pytest.approx(0.922, abs=5e-4)


def test_unequal_lists_and_unknown_planes_are_refused():
    with pytest.raises(UsageError):
        score_planes(["a"], ["a", "b"], classes=CLASSES)
    with pytest.raises(UsageError, match="zz"):
        score_planes(["zz"], ["a"], classes=CLASSES)


def test_boxes_worked_by_hand():
    scores = score_boxes(
        [(0, 0, 10, 10)] * 3 + [(0, 0, 4, 4)], [(0, 0, 10, 10), (0, 0, 10, 4), None, (0, 0, 4, 1)], ["x", "x", "x", "y"]
    )
    assert scores["x"].iou_mean == pytest.approx((1 + 0.4 + 0) / 3)
    assert scores["x"].correct == pytest.approx(1 / 3)
    assert scores["x"].relative_correct == pytest.approx(1 / 3)
    # One poor box alone: not correct, but as good as its class gets.
    assert (scores["y"].correct, scores["y"].relative_correct) == (0, 1)
    assert math.isnan(scores["y"].iou_sd)


def test_the_picture_shows_every_class():
    picture = draw_confusion(score_planes(["a", "b"], ["a", "a"], classes=CLASSES))
    assert picture.size[0] > 3 * 44
    assert np.asarray(picture).min() < 128
