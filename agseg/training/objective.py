"""Loss factory: builds the loss named in a recipe as a function of one head's logits and the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from agseg.errors import RecipeError
from agseg.training import losses, masked_losses
from agseg.training.loop import Batch, Loss
from agseg.training.partial_loss import partial_dice_cross_entropy
from agseg.training.recipe import LossName


def objective(
    name: LossName, *, kept: Sequence[int] | None = None, regions: Sequence[Sequence[int]] = (), ignores: bool = False
) -> Loss:
    """The loss by name.

    Parameters
    ----------
    name
        See :class:`~agseg.training.recipe.LossName`.
    kept
        Fine-tuning where only some organs are labelled: the classes whose logits count, background first. The targets of
        the batch are numbered as the network's classes.
    regions
        The label values of each head's region; empty where classes exclude each other.
    ignores
        Whether targets hold voxels that nobody labelled.

    Raises
    ------
    RecipeError
        If the loss has no form with dropped logits, for regions, or with voxels that nobody labelled.
    """
    if bool(regions) != (name is LossName.REGIONS):
        raise RecipeError(
            "regions have a loss of their own, and nothing else has it", value=name.value, expected=LossName.REGIONS.value
        )
    if name is LossName.REGIONS:
        return lambda logits, batch: masked_losses.regions_loss(logits, batch.target, regions=regions)
    if name is LossName.PARTIAL and kept is None:
        return lambda logits, batch: partial_dice_cross_entropy(logits, batch.target, known=batch.known)
    if ignores:
        return _masked(name, kept)
    if kept is not None:
        if name is not LossName.SOFT_DICE:
            raise RecipeError("only soft Dice can drop logits", value=name.value, expected=LossName.SOFT_DICE.value)
        return lambda logits, batch: losses.aft_loss(logits, batch.target, kept=kept)
    match name:
        case LossName.SOFT_DICE:
            return lambda logits, batch: losses.soft_dice_loss(logits, batch.target)
        case LossName.DICE_BCE:
            return lambda logits, batch: losses.dice_bce_loss(logits, batch.target)
        case LossName.DICE_CROSS_ENTROPY:
            return lambda logits, batch: losses.dice_cross_entropy_loss(logits, batch.target)
        case LossName.HYBRID:
            return lambda logits, batch: losses.hybrid_loss([logits], batch.target)
        case LossName.FOCUSNET_DICE:
            return lambda logits, batch: losses.focusnet_dice_loss(logits, batch.target)
        case LossName.PLANES:
            return _planes
        case LossName.REGIONS | LossName.PARTIAL:
            raise AssertionError("answered above")


def _masked(name: LossName, kept: Sequence[int] | None) -> Loss:
    """The forms that leave out what nobody labelled."""
    if kept is None and name is LossName.SOFT_DICE:
        return lambda logits, batch: masked_losses.masked_soft_dice_loss(logits, batch.target)
    if kept is None and name is LossName.DICE_CROSS_ENTROPY:
        return lambda logits, batch: (
            masked_losses.masked_soft_dice_loss(logits, batch.target)
            + masked_losses.masked_cross_entropy_loss(logits, batch.target)
        )
    raise RecipeError(
        "this loss has no form for voxels that nobody labelled (the label 'ignore')",
        value=name.value,
        expected=f"{LossName.SOFT_DICE.value}, {LossName.DICE_CROSS_ENTROPY.value} or {LossName.PARTIAL.value}",
    )


def _planes(logits: Tensor, batch: Batch) -> Tensor:
    """One head's cross-entropy; the loop weights the heads (:func:`agseg.training.losses.planes_loss` does both)."""
    return F.cross_entropy(logits, batch.target)
