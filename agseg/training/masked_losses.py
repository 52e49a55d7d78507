"""Losses for labels that are not all there, and for regions: voxels that nobody labelled count for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.across import summed
from agseg.training.cases import IGNORE
from agseg.training.losses import SOFT_DICE_SMOOTH


def masked_soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """:func:`agseg.training.losses.soft_dice_loss` over labelled voxels; logits ``[B, C, *grid]``, labels ``[B, *grid]``."""
    known = (labels != IGNORE).unsqueeze(1)
    plain = torch.where(labels == IGNORE, torch.zeros_like(labels), labels)
    targets = F.one_hot(plain.long(), logits.shape[1]).movedim(-1, 1)
    return 1 - _dice(torch.softmax(logits.float(), dim=1), targets, known).mean()


def masked_cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, averaged over the labelled voxels; 0 where there is none."""
    total = F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE, reduction="sum")
    return summed(total) / summed((labels != IGNORE).sum().float()).clamp_min(1)


def regions_loss(logits: Tensor, labels: Tensor, *, regions: Sequence[Sequence[int]]) -> Tensor:
    """Dice plus binary cross-entropy of regions that may lie in one another, each against the rest.

    Source: nnU-Net's ``DC_and_BCE_loss`` for regions (batch Dice off): sigmoid per head, both terms over the labelled voxels.

    Parameters
    ----------
    logits
        One head per region, ``[B, len(regions), *grid]``.
    labels
        Values as the label images hold them, ``[B, *grid]``; ``IGNORE`` where nobody labelled.
    regions
        The values that make up each region, in the order of the heads.
    """
    known = (labels != IGNORE).unsqueeze(1)
    values = [torch.tensor(list(region), device=labels.device, dtype=labels.dtype) for region in regions]
    targets = torch.stack([torch.isin(labels, value) for value in values], dim=1).float()
    z = logits.float()
    voxels = F.binary_cross_entropy_with_logits(z, targets, reduction="none") * known
    cross_entropy = summed(voxels.sum()) / (summed(known.sum().float()) * len(regions)).clamp_min(1)
    return cross_entropy + 1 - _dice(torch.sigmoid(z), targets, known).mean()


def _dice(p: Tensor, t: Tensor, known: Tensor) -> Tensor:
    """Soft Dice per sample and channel over the known voxels, ``[B, C]``."""
    p, t = p * known, t * known
    inside = (p * t).flatten(2).sum(dim=2)
    return (2 * inside + SOFT_DICE_SMOOTH) / (p.flatten(2).sum(dim=2) + t.flatten(2).sum(dim=2) + SOFT_DICE_SMOOTH)
