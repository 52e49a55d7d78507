"""Losses over labelled voxels only, and for regions that lie in one another."""

from __future__ import annotations

import torch

from agseg.training.cases import IGNORE
from agseg.training.losses import dice_cross_entropy_loss, soft_dice_loss
from agseg.training.masked_losses import masked_cross_entropy_loss, masked_soft_dice_loss, regions_loss

LABELS = torch.tensor([[[[0, 1, 2, 3], [1, 1, 2, 0], [3, 3, 0, 0]]]]).repeat(2, 1, 1, 1).squeeze(1)


def logits(channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_where_all_is_labelled_they_are_the_plain_losses() -> None:
    z = logits()
    assert torch.allclose(masked_soft_dice_loss(z, LABELS), soft_dice_loss(z, LABELS))
    both = masked_soft_dice_loss(z, LABELS) + masked_cross_entropy_loss(z, LABELS)
    assert torch.allclose(both, dice_cross_entropy_loss(z, LABELS))


def test_an_ignored_voxel_moves_nothing() -> None:
    masked = LABELS.clone()
    masked[:, 0, 0] = IGNORE
    for loss in (masked_soft_dice_loss, masked_cross_entropy_loss):
        z = logits()
        loss(z, masked).backward()
        assert z.grad is not None
        assert z.grad[:, :, 0, 0].abs().max() == 0
        assert z.grad.abs().max() > 0
        other = z.detach().clone()
        other[:, :, 0, 0] += 5
        assert torch.equal(loss(other, masked), loss(z.detach(), masked))


def test_regions_are_unions_and_perfect_scores_cost_nothing() -> None:
    regions = ((1, 2, 3), (2, 3), (3,))
    targets = torch.stack([torch.isin(LABELS, torch.tensor(region)) for region in regions], dim=1)
    perfect = torch.where(targets, 30.0, -30.0)
    assert float(regions_loss(perfect, LABELS, regions=regions)) < 1e-3
    assert float(regions_loss(-perfect, LABELS, regions=regions)) > 10
    masked = LABELS.clone()
    masked[:, 0, 0] = IGNORE
    wrong = perfect.clone()
    wrong[:, :, 0, 0] = 30.0
    assert float(regions_loss(wrong, masked, regions=regions)) < 1e-3
