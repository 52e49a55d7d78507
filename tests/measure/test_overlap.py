import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from agseg.measure.overlap import Overlap, class_scores, confusion_matrix, macro, overlap, pooled

masks = arrays(np.bool_, (3, 4, 5))


def test_hand_counted_example():
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    prediction = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    counted = overlap(prediction, truth=truth)
    assert counted == Overlap(true_positive=2, false_positive=1, false_negative=1, true_negative=4)
    assert counted.dice == pytest.approx(4 / 6)
    assert counted.iou == pytest.approx(2 / 4)
    assert counted.precision == pytest.approx(2 / 3)
    assert counted.recall == pytest.approx(2 / 3)
    assert counted.specificity == pytest.approx(4 / 5)
    assert counted.accuracy == pytest.approx(6 / 8)


def test_both_empty_is_nan_and_one_empty_is_zero():
    nothing, something = np.zeros(4, dtype=bool), np.array([1, 0, 0, 0], dtype=bool)
    empty = overlap(nothing, truth=nothing)
    assert all(math.isnan(value) for value in (empty.dice, empty.iou, empty.precision, empty.recall))
    assert empty.accuracy == 1.0
    missed, invented = overlap(nothing, truth=something), overlap(something, truth=nothing)
    for counted in (missed, invented):
        assert (counted.dice, counted.iou, counted.precision, counted.recall) == (0, 0, 0, 0)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        overlap(np.zeros(3, dtype=bool), truth=np.zeros((1, 3), dtype=bool))


@settings(deadline=None)
@given(masks, masks)
def test_dice_is_symmetric_and_bound_to_iou(first, second):
    counted, swapped = overlap(first, truth=second), overlap(second, truth=first)
    if counted.both_empty:
        return
    assert counted.dice == swapped.dice
    assert counted.dice == pytest.approx(2 * counted.iou / (1 + counted.iou))
    assert counted.precision == swapped.recall
    assert counted.iou <= counted.accuracy


@settings(deadline=None)
@given(masks, masks)
def test_pooling_halves_gives_the_whole(first, second):
    halves = [overlap(first[:, :2], truth=second[:, :2]), overlap(first[:, 2:], truth=second[:, 2:])]
    assert pooled(halves) == overlap(first, truth=second)


def test_macro_f1_is_the_mean_of_the_classes():
    truth = [0, 0, 0, 0, 1, 1, 2]
    predicted = [0, 0, 0, 1, 1, 1, 0]
    confusion = confusion_matrix(predicted, truth=truth, class_count=4)
    assert confusion[0].tolist() == [3, 1, 0, 0]
    scores = class_scores(confusion)
    assert scores[0].f1 == pytest.approx(2 * 0.75 * 0.75 / 1.5)
    assert (scores[1].precision, scores[1].recall, scores[1].support) == (pytest.approx(2 / 3), 1.0, 2)
    assert scores[2].f1 == 0
    assert math.isnan(scores[3].f1)
    total = macro(confusion)
    assert total.classes == 3  # class 3 occurs nowhere
    assert total.f1 == pytest.approx((0.75 + 0.8 + 0) / 3)
    assert total.accuracy == pytest.approx(5 / 7)


def test_macro_agrees_with_the_published_table_six():
    f1 = [0.985, 0.985, 0.958, 0.966, 0.962, 0.882, 0.975, 0.957, 0.957, 0.956, 0.708, 0.698, 0.929, 0.993]
    assert np.mean(f1) == pytest.approx(0.9222, abs=5e-4)


def test_no_frames_give_no_scores():
    nothing = macro(np.zeros((3, 3), dtype=np.int64))
    assert nothing.classes == 0
    assert math.isnan(nothing.f1)


@pytest.mark.parametrize(("predicted", "truth"), [([0, 3], [0, 1]), ([0], [0, 1]), ([-1], [0])])
def test_impossible_classes_are_refused(predicted, truth):
    with pytest.raises(ValueError):
        confusion_matrix(predicted, truth=truth, class_count=3)
