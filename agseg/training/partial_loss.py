"""Dice and cross-entropy for scans of which only some organs are labelled.

Where a scan's labels know some classes only, its background may be any other class of the network. The probability of
"none of the known ones" is then the sum over all other classes, and the loss is taken on these merged classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.cases import IGNORE

SMOOTHING = 1.0
"""Added to numerator and denominator of soft Dice (voxels): an absent class that is not predicted costs nothing."""


def merge_unknown(log_probabilities: Tensor, known: Sequence[int]) -> Tensor:
    """``[n, classes]`` log-probabilities -> ``[n, 1 + len(known)]``: first all that is not known, then the known classes."""
    kept = list(known)
    rest = [c for c in range(log_probabilities.shape[1]) if c not in set(kept)]
    return torch.cat([torch.logsumexp(log_probabilities[:, rest], dim=1, keepdim=True), log_probabilities[:, kept]], dim=1)


def partial_dice_cross_entropy(
    logits: Tensor, labels: Tensor, *, known: Sequence[int] | None = None, dice_weight: float = 1.0
) -> Tensor:
    """Mean cross-entropy + (1 - mean soft Dice over classes that are labelled or predicted) of one batch.

    Parameters
    ----------
    logits
        ``[B, classes, *grid]``, float32.
    labels
        ``[B, *grid]``, integer; :data:`~agseg.training.cases.IGNORE` is left out.
    known
        Classes the labels tell apart, or None for all.
    """
    classes = logits.shape[1]
    flat = logits.movedim(1, -1).reshape(-1, classes)
    target = labels.reshape(-1).long()
    valid = target != IGNORE
    if not bool(valid.all()):
        flat, target = flat[valid], target[valid]
    if len(target) == 0:
        return logits.sum() * 0.0
    scores = F.log_softmax(flat, dim=1)
    if known is not None and len(known) < classes - 1:
        scores = merge_unknown(scores, known)
        table = torch.zeros(256, dtype=torch.long, device=target.device)
        table[list(known)] = torch.arange(1, len(known) + 1, device=target.device)
        target = table[target]
    entropy = F.nll_loss(scores, target)
    if dice_weight == 0:
        return entropy
    probabilities = scores.exp()
    hot = F.one_hot(target, scores.shape[1]).to(probabilities.dtype)
    overlap = (probabilities * hot).sum(0)
    size = (probabilities + hot).sum(0)
    dice = (2 * overlap + SMOOTHING) / (size + SMOOTHING)
    return entropy + dice_weight * (1.0 - dice[1:].mean())
