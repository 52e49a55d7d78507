"""Losses of the five papers, on logits.

Logits are ``[B, C, *grid]`` in any floating type and are turned to float32; labels are integer ``[B, *grid]`` with 0 as
background. With one logit channel any label above 0 is foreground against a sigmoid. Every loss is a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.errors import RecipeError
from agseg.training.across import summed

SOFT_DICE_SMOOTH = 0.01
"""Smoothing of the multi-class soft Dice (the public code's value)."""

UNIT_SMOOTH = 1.0
"""Smoothing of ANU-Net's and FocusNet's Dice."""

MARGIN_FLOOR = 0.1
"""Smallest |p - 0.5| in the hybrid loss's margin weights, which bounds them by 25 for gamma = 2."""


def soft_dice_loss(logits: Tensor, labels: Tensor, *, smooth: float = SOFT_DICE_SMOOTH, smooth_inside: bool = False) -> Tensor:
    """Multi-class soft Dice, averaged over samples and all classes with the background.

    Source: Attention Gated Networks (2019), section 3.2 (Milletari et al. 2016). With p = softmax(z) and one-hot
    t, sums over the voxels of sample b and class c:

        D_bc = (2 sum p t + s) / (sum p + sum t + s),   loss = 1 - mean_bc D_bc

    The reference writes 2 (sum p t + s) (``smooth_inside``): a class that is rightly empty then scores 2 and a perfect
    prediction goes below 0. Here such a class scores 1.
    """
    p = torch.softmax(logits.float(), dim=1)
    return 1 - _soft_dice(p, _one_hot(labels, p.shape[1]), smooth=smooth, smooth_inside=smooth_inside).mean()


def aft_loss(logits: Tensor, labels: Tensor, *, kept: Sequence[int], smooth: float = SOFT_DICE_SMOOTH) -> Tensor:
    """Soft Dice over the softmax of the kept logits only, for fine-tuning where the other organs are not labelled.

    Source: Attention Gated Networks (2019), section 3.3.1 (AFT). Dropped logits get no gradient; voxels with a label that is
    not kept count as background. The reference divides by the full number of classes, which halves its gradients and lifts
    its minimum to 0.5; here the mean is over the kept ones.

    Parameters
    ----------
    kept
        Class indices in logit order, the background first, e.g. ``(0, 2)`` for background and pancreas.
    """
    if not kept or kept[0] != 0 or len(set(kept)) != len(kept) or max(kept) >= logits.shape[1]:
        expected = f"the background first and then classes below {logits.shape[1]}, each once"
        raise RecipeError("the kept classes do not fit the network", value=list(kept), expected=expected)
    renumbered = torch.zeros_like(labels)
    for index, label in enumerate(kept):
        renumbered[labels == label] = index
    return soft_dice_loss(logits[:, list(kept)], renumbered, smooth=smooth)


def dice_bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice plus binary cross-entropy, for one foreground logit.

    Source: the slides on Attention U-Net: L = (1 - 2 |S n S^| / (|S| + |S^|)) + BCE. BCE is printed as a sum over pixels,
    which would outweigh Dice a million times on a volume; it is the mean here.
    """
    p, t = torch.sigmoid(logits.float()), _targets(labels, logits)
    bce = F.binary_cross_entropy_with_logits(logits.float(), t)
    return 1 - _soft_dice(p, t, smooth=SOFT_DICE_SMOOTH, smooth_inside=False).mean() + bce


def dice_cross_entropy_loss(
    logits: Tensor, labels: Tensor, *, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0
) -> Tensor:
    """Soft Dice plus categorical cross-entropy: the multi-class form of Dice + BCE.

    Source: the slides on Attention U-Net and Dense V-Net: lambda_1 Dice + lambda_2 CE. CE is printed with its foreground term
    only; the full categorical one stands here.
    """
    cross_entropy = F.cross_entropy(logits.float(), labels.long())
    return dice_weight * soft_dice_loss(logits, labels) + cross_entropy_weight * cross_entropy


class HybridMode(StrEnum):
    """How the hybrid loss weights its cross-entropy per pixel."""

    FOCAL = "focal"
    """(1 - p_t)^gamma: small where the prediction is right."""
    MARGIN = "margin"
    """(0.5 / max(|p - 0.5|, delta))^gamma, without gradient: large where it is undecided; closest to the print."""


def hybrid_loss(
    heads: Sequence[Tensor],
    labels: Tensor,
    *,
    mode: str = HybridMode.FOCAL,
    alpha: float = 0.25,
    gamma: float = 2.0,
    smooth: float = UNIT_SMOOTH,
    normalise_weights: bool = False,
) -> Tensor:
    """ANU-Net's hybrid of weighted cross-entropy and Dice, summed over the heads.

    Source: Li et al., ANU-Net (2020), equation (8). Printed is
    sum_i (1 - [alpha Y log Y_i / |Y_i - 0.5|^gamma + (2 Y_i Y + s) / (Y_i^2 + Y^2 + s)]), which is infinite at Y_i = 0.5, where
    an untrained sigmoid starts, and has no term for the background. Here, per head with p = sigmoid(z):

        mean of w [-alpha t log p - (1 - alpha) (1 - t) log(1 - p)]  +  1 - (2 sum p t + s) / (sum p^2 + sum t^2 + s)

    Every logit channel is its own binary problem: with several channels each class stands against the rest.

    Parameters
    ----------
    heads
        Logits of every head, as :meth:`agseg.models.unetpp.UNetPlusPlus.heads` gives them.
    mode
        See :class:`HybridMode`.
    alpha, gamma
        Weight of positives; sharpness of the pixel weights (the paper recommends 2).
    normalise_weights
        Divide the pixel weights by their mean, so that both modes have the same scale.
    """
    weigh = {HybridMode.FOCAL: _focal_weights, HybridMode.MARGIN: _margin_weights}[HybridMode(mode)]
    losses = []
    for logits in heads:
        z, t = logits.float(), _targets(labels, logits)
        p = torch.sigmoid(z)
        weights = weigh(p, t, gamma)
        if normalise_weights:
            weights = weights / weights.detach().mean()
        bce = weights * -(alpha * t * F.logsigmoid(z) + (1 - alpha) * (1 - t) * F.logsigmoid(-z))
        dice = (2 * _sums(p * t) + smooth) / (_sums(p * p) + _sums(t * t) + smooth)
        losses.append(bce.mean() + 1 - dice.mean())
    return torch.stack(losses).sum()


def focusnet_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """FocusNet's Dice loss, flattened over the whole batch.

    Source: Kaul et al., FocusNet (2019), section 3.2: 1 - (2 sum t p + 1) / (sum t + sum p + 1).
    """
    p, t = torch.sigmoid(logits.float()), _targets(labels, logits)
    # The batch is that of all processes.
    return 1 - (2 * summed((t * p).sum()) + UNIT_SMOOTH) / (summed(t.sum() + p.sum()) + UNIT_SMOOTH)


def side_supervised_loss(
    heads: Sequence[Tensor], labels: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor], side_weight: float = 0.0
) -> Tensor:
    """A loss on the fused logits, plus ``side_weight`` times the mean of the same loss over the side maps.

    Source: the public code of Attention Gated Networks (2019), where "deep supervision" is one loss on the fused map (weight
    0, the default); the auxiliary losses of Lee et al. (2015), which the text cites, are the option.
    """
    fused, *sides = heads
    total = loss(fused, labels)
    if side_weight and sides:
        total = total + side_weight * torch.stack([loss(side, labels) for side in sides]).mean()
    return total


def planes_loss(scores: Sequence[Tensor], planes: Tensor, *, weights: Sequence[float]) -> Tensor:
    """Weighted sum of the cross-entropies of a classifier's heads.

    Source: Attention Gated Networks (2019), section 2.4.

    Parameters
    ----------
    scores, weights
        A classifier's ``scores(x)``, logits ``[B, classes]`` per head, and its ``loss_weights``.
    planes
        True scan planes, integer ``[B]``.
    """
    terms = [weight * F.cross_entropy(score.float(), planes) for score, weight in zip(scores, weights, strict=True)]
    return torch.stack(terms).sum()


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Float32 ``[B, classes, *grid]``."""
    return F.one_hot(labels.long(), classes).movedim(-1, 1).float()


def _targets(labels: Tensor, logits: Tensor) -> Tensor:
    """Binary targets of the logits' shape: foreground for one channel, one class per channel for several."""
    if logits.shape[1] == 1:
        return (labels > 0).unsqueeze(1).float()
    return _one_hot(labels, logits.shape[1])


def _sums(x: Tensor) -> Tensor:
    """Sums over the grid, ``[B, C]``."""
    return x.flatten(2).sum(dim=2)


def _soft_dice(p: Tensor, t: Tensor, *, smooth: float, smooth_inside: bool) -> Tensor:
    """Dice per sample and channel, ``[B, C]``."""
    numerator = 2 * (_sums(p * t) + smooth) if smooth_inside else 2 * _sums(p * t) + smooth
    return numerator / (_sums(p) + _sums(t) + smooth)


def _focal_weights(p: Tensor, t: Tensor, gamma: float) -> Tensor:
    of_truth = torch.where(t > 0, p, 1 - p)
    weights: Tensor = (1 - of_truth) ** gamma
    return weights


def _margin_weights(p: Tensor, _t: Tensor, gamma: float) -> Tensor:
    weights: Tensor = (0.5 / (p.detach() - 0.5).abs().clamp_min(MARGIN_FLOOR)) ** gamma
    return weights
