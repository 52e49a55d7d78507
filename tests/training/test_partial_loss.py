"""Laws of the loss for partly labelled scans."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from agseg.training.cases import IGNORE
from agseg.training.partial_loss import merge_unknown, partial_dice_cross_entropy


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn((1, 4, 5, 6, 7), generator=torch.Generator().manual_seed(seed))


def labels() -> torch.Tensor:
    return torch.randint(0, 4, (1, 5, 6, 7), generator=torch.Generator().manual_seed(1))


def test_merged_probabilities_still_add_up_to_one() -> None:
    scores = F.log_softmax(torch.randn(9, 6), dim=1)
    torch.testing.assert_close(merge_unknown(scores, [2, 5]).exp().sum(1), torch.ones(9))


def test_with_every_class_known_it_is_plain_cross_entropy_and_dice() -> None:
    plain = partial_dice_cross_entropy(logits(), labels(), dice_weight=0.0)
    torch.testing.assert_close(plain, F.cross_entropy(logits(), labels()))
    torch.testing.assert_close(
        partial_dice_cross_entropy(logits(), labels(), known=(1, 2, 3)), partial_dice_cross_entropy(logits(), labels())
    )


def test_an_unknown_organ_may_be_called_background_or_organ_at_no_cost() -> None:
    target = torch.zeros((1, 5, 6, 7), dtype=torch.long)
    sure = torch.full((1, 4, 5, 6, 7), -30.0)
    losses = []
    for chosen in (0, 3):  # class 3 is not known
        one = sure.clone()
        one[:, chosen] = 30.0
        losses.append(partial_dice_cross_entropy(one, target, known=(1, 2)))
    assert losses[0] == pytest.approx(0.0, abs=1e-5)
    assert losses[1] == pytest.approx(0.0, abs=1e-5)
    sure[:, 1] = 30.0
    assert partial_dice_cross_entropy(sure, target, known=(1, 2)) > 1


def test_ignored_voxels_give_no_gradient() -> None:
    z = logits().requires_grad_()
    target = labels()
    target[0, :2] = IGNORE
    partial_dice_cross_entropy(z, target, dice_weight=0.0).backward()
    assert z.grad is not None
    assert torch.all(z.grad[0, :, :2] == 0)
    assert torch.any(z.grad[0, :, 2:] != 0)


def test_a_patch_that_is_ignored_altogether_costs_nothing() -> None:
    z = logits().requires_grad_()
    loss = partial_dice_cross_entropy(z, torch.full((1, 5, 6, 7), IGNORE))
    loss.backward()
    assert loss == 0


def test_a_perfect_prediction_costs_nothing_even_where_classes_are_absent() -> None:
    target = torch.zeros((1, 5, 6, 7), dtype=torch.long)
    target[0, 0] = 2
    perfect = F.one_hot(target, 4).movedim(-1, 1).float() * 60 - 30
    assert partial_dice_cross_entropy(perfect, target) == pytest.approx(0.0, abs=1e-4)
