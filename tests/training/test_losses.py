"""Laws of the losses: where they are zero, where they stay finite, what gets no gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.errors import RecipeError
from agseg.training.losses import (
    aft_loss,
    dice_bce_loss,
    dice_cross_entropy_loss,
    focusnet_dice_loss,
    hybrid_loss,
    planes_loss,
    side_supervised_loss,
    soft_dice_loss,
)

CONFIDENT = 60.0


def perfect_logits(labels: torch.Tensor, classes: int) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()
    return CONFIDENT * (2 * one_hot - 1)


def some_labels(classes: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, classes, (2, 6, 5, 4), generator=torch.Generator().manual_seed(seed))


def tenth_of_foreground() -> torch.Tensor:
    labels = torch.zeros(2, 20, 20, dtype=torch.long)
    labels[:, :4, :10] = 1
    return labels


def test_soft_dice_of_a_perfect_prediction_with_absent_classes_is_zero():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    labels[:, 2:5] = 1
    assert soft_dice_loss(perfect_logits(labels, 4), labels).item() == pytest.approx(0, abs=1e-6)
    labels[:] = 0
    assert soft_dice_loss(perfect_logits(labels, 4), labels).item() == pytest.approx(0, abs=1e-6)


def test_reference_form_goes_below_zero_with_three_absent_classes():
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    loss = soft_dice_loss(perfect_logits(labels, 4), labels, smooth_inside=True)
    assert loss.item() == pytest.approx(-0.75, abs=1e-4)


def test_soft_dice_by_hand():
    # Two voxels, two classes, uniform softmax; the first voxel is class 1: D = (2 * .5 + s) / (1 + 1 + s) for both.
    labels = torch.tensor([[[1, 0]]])
    assert soft_dice_loss(torch.zeros(1, 2, 1, 2), labels).item() == pytest.approx(1 - 1.01 / 2.01, abs=1e-6)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_soft_dice_lies_between_zero_and_one(seed):
    logits = 5 * torch.randn(2, 4, 6, 5, 4, generator=torch.Generator().manual_seed(seed))
    assert 0 <= soft_dice_loss(logits, some_labels(seed=seed)).item() <= 1


def test_aft_gives_no_gradient_to_dropped_logits():
    labels = some_labels()
    logits = torch.randn(2, 4, 6, 5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    aft_loss(logits, labels, kept=(0, 2)).backward()
    assert torch.count_nonzero(logits.grad[:, [1, 3]]) == 0
    assert torch.count_nonzero(logits.grad[:, [0, 2]]) > 0


def test_aft_does_not_depend_on_dropped_logits_and_reaches_zero():
    labels = some_labels()
    kept = torch.where(labels == 2, 1, 0)
    logits = torch.zeros(2, 4, 6, 5, 4)
    logits[:, [0, 2]] = perfect_logits(kept, 2)
    logits[:, [1, 3]] = 1e3
    assert aft_loss(logits, labels, kept=(0, 2)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kept", [(), (2, 0), (0, 2, 2), (0, 4)])
def test_aft_refuses_classes_that_do_not_fit(kept):
    with pytest.raises(RecipeError):
        aft_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), kept=kept)


@pytest.mark.parametrize(("mode", "expected"), [("focal", 3.33), ("margin", 51.3)])
def test_hybrid_is_finite_where_an_untrained_sigmoid_starts(mode, expected):
    heads = [torch.zeros(2, 1, 20, 20, requires_grad=True) for _ in range(4)]
    loss = hybrid_loss(heads, tenth_of_foreground(), mode=mode)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=0.1)
    assert all(torch.isfinite(head.grad).all() and head.grad.abs().sum() > 0 for head in heads)


@pytest.mark.parametrize("mode", ["focal", "margin"])
@pytest.mark.parametrize("classes", [1, 3])
def test_hybrid_of_a_perfect_prediction_is_zero(mode, classes):
    labels = tenth_of_foreground()
    logits = perfect_logits(labels, max(classes, 2))
    heads = [logits[:, 1:2] if classes == 1 else logits]
    assert hybrid_loss(heads, labels, mode=mode).item() == pytest.approx(0, abs=1e-5)


def test_hybrid_is_the_sum_over_heads():
    labels = tenth_of_foreground()
    heads = [torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    separate = sum(hybrid_loss([head], labels).item() for head in heads)
    assert hybrid_loss(heads, labels).item() == pytest.approx(separate, rel=1e-5)


def test_focal_weights_shrink_what_is_right_and_margin_weights_have_no_gradient():
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    right, wrong = torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 4, 4), -3.0)
    gap = [
        hybrid_loss([wrong], labels, mode=m).item() - hybrid_loss([right], labels, mode=m).item() for m in ("focal", "margin")
    ]
    assert min(gap) > 0
    logits = torch.full((1, 1, 4, 4), 1.0, requires_grad=True)
    # With weights held fixed the gradient of w * BCE at alpha = 1 is -w (1 - p) per pixel; Dice's part is taken away.
    whole = torch.autograd.grad(hybrid_loss([logits], labels, mode="margin", alpha=1.0), logits)[0]
    dice = torch.autograd.grad(hybrid_loss([logits], labels, mode="margin", alpha=1.0, gamma=0.0), logits)[0]
    p = 1 / (1 + math.exp(-1.0))
    weight = (0.5 / (p - 0.5)) ** 2
    torch.testing.assert_close(whole - dice, torch.full_like(whole, -(weight - 1) * (1 - p) / 16), rtol=1e-4, atol=1e-7)


def test_normalised_margin_weights_have_mean_one():
    labels = tenth_of_foreground()
    logits = torch.zeros(2, 1, 20, 20)
    plain = hybrid_loss([logits], labels, mode="margin", gamma=0.0)
    torch.testing.assert_close(hybrid_loss([logits], labels, mode="margin", normalise_weights=True), plain)


def test_focusnet_dice_is_flattened_over_the_batch():
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0] = 1
    p = 0.5
    expected = 1 - (2 * 16 * p + 1) / (16 + 32 * p + 1)
    assert focusnet_dice_loss(torch.zeros(2, 1, 4, 4), labels).item() == pytest.approx(expected, abs=1e-6)


def test_dice_with_cross_entropy_by_hand_and_at_perfection():
    labels = torch.tensor([[[1, 0]]])
    dice = 1 - 1.01 / 2.01
    assert dice_bce_loss(torch.zeros(1, 1, 1, 2), labels).item() == pytest.approx(dice + math.log(2), abs=1e-6)
    assert dice_cross_entropy_loss(torch.zeros(1, 2, 1, 2), labels).item() == pytest.approx(dice + math.log(2), abs=1e-6)
    many = some_labels()
    assert dice_cross_entropy_loss(perfect_logits(many, 4), many).item() == pytest.approx(0, abs=1e-5)
    # The mean, not the sum: the loss does not grow with the number of pixels.
    wide = labels.repeat(1, 50, 50)
    assert dice_bce_loss(torch.zeros(1, 1, *wide.shape[1:]), wide).item() < 2


def test_side_losses_are_off_by_default():
    labels = some_labels()
    fused, side = perfect_logits(labels, 4), torch.zeros(2, 4, 6, 5, 4)
    assert side_supervised_loss([fused, side, side], labels, loss=soft_dice_loss).item() == pytest.approx(0, abs=1e-5)
    weighted = side_supervised_loss([fused, side, side], labels, loss=soft_dice_loss, side_weight=0.5)
    assert weighted.item() == pytest.approx(0.5 * soft_dice_loss(side, labels).item(), abs=1e-5)


def test_planes_loss_weights_every_head():
    scores, planes = [torch.zeros(3, 14), torch.zeros(3, 14)], torch.tensor([0, 5, 13])
    assert planes_loss(scores, planes, weights=(1.0, 0.1)).item() == pytest.approx(1.1 * math.log(14), abs=1e-5)
    with pytest.raises(ValueError, match="zip"):
        planes_loss(scores, planes, weights=(1.0,))
