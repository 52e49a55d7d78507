"""Bring a trained network to data of one's own: its trunk, and a head for the labels that are wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from agseg.errors import RecipeError
from agseg.labels import LabelSet
from agseg.laterality import sided
from agseg.models.catalogue import FAMILIES, config_of, facts
from agseg.models.registry import build
from agseg.training.cohort import Cohort, open_cohort
from agseg.training.draws import Affine
from agseg.training.loaders import check_input
from agseg.training.protocol import OWN
from agseg.training.recipe import LossName, NetworkChoice, Recipe
from agseg.training.settings import LoopSettings, Optimiser, Schedule
from agseg.training.splits import default_split
from agseg.training.trained_model import TrainedModel
from agseg.weights.input_spec import Carry, InputSpec

_log = logging.getLogger(__name__)

STEPS = 2000
"""Optimiser steps of a fine-tuning on one's own data where nobody names a number."""

RATE = 1e-4


def adapted_recipe(source: TrainedModel, data: Path, *, organs: Sequence[str] = (), name: str | None = None) -> Recipe:
    """A recipe that fine-tunes a network on a cohort: network and input are the source's, the classes are the cohort's.

    Parameters
    ----------
    source
        What it starts from.
    data
        The cohort's folder; its first split is used.
    organs
        Labels of the cohort that are learned; all of them by default.
    name
        Of the recipe; by default the data set's name and the source's.

    Raises
    ------
    RecipeError
        If the network sees other images than the cohort holds, a label is not there, or the network cannot be trained here.
    """
    cohort = open_cohort(data)
    spec = _trainable(source)
    if cohort.meaning is not None and cohort.meaning.regions:
        raise RecipeError("fine-tuning to regions is not supported", path=data, value=list(cohort.meaning.regions))
    wanted = tuple(organs) or cohort.label_set.names
    labels = dict(enumerate((cohort.label_set[organ].name for organ in wanted), start=1))
    own = source.recipe.network
    family, _ = config_of(own.architecture, own.config)
    config = {**own.config, FAMILIES[family].classes_key: len(labels) + 1}
    depths = facts(own.architecture, config).deepest  # a nested network can be cut off only where its outputs have learned
    recipe = Recipe(
        name=name or f"{cohort.name}-from-{source.recipe.name}",
        title=f"{own.architecture}, {cohort.name}, from {source.recipe.name}",
        source="own data; fine-tuned",
        dataset=cohort.name,
        split=default_split(data),
        protocol=OWN.name,
        network=NetworkChoice(own.architecture, config),
        labels=labels,
        input=spec,
        loss=LossName.DICE_CROSS_ENTROPY,
        batch=2,
        affine=_affine(spec, cohort.label_set),
        organ_share=0.33,
        loop=LoopSettings(
            steps=STEPS,
            optimiser=Optimiser.ADAMW,
            learning_rate=RATE,
            weight_decay=1e-4,
            schedule=Schedule.COSINE,
            warmup_steps=50,
            clip_norm=12.0,
            validate_every=STEPS // 10,
            checkpoint_every=STEPS // 10,
            log_every=20,
            head_weights=(1.0,) * depths if depths > 1 else None,
        ),
    )
    _check(recipe, cohort)
    return recipe


def _check(recipe: Recipe, cohort: Cohort) -> None:
    try:
        check_input(recipe, cohort)
    except RecipeError as error:
        error.hint = "A network can be brought to images of its own kind only."
        raise


def _trainable(source: TrainedModel) -> InputSpec:
    """The source's input, without what its own heads were for."""
    spec = source.recipe.input
    if spec.spacing_mm is None or 0 in spec.spacing_mm or spec.body_box:
        raise RecipeError(
            "networks that see a box of fixed size, or nnU-Net's slices, cannot be fine-tuned",
            value=source.recipe.name,
            expected="a network that sees a grid at a spacing",
        )
    carry = Carry.PROBABILITIES if spec.regions else spec.carry
    return replace(spec, regions=(), mirror_axes=(), carry=carry)


def _affine(spec: InputSpec, labels: LabelSet) -> Affine:
    """Rotation in the axial plane, which only some axis orders begin with; mirroring where no label has a side."""
    axial = spec.axis_codes[2:] in ("S", "I")
    across = [axis for axis, code in enumerate(spec.axis_codes) if code in "LR"]
    flip = () if sided(labels.names) or not axial else tuple(across)
    return Affine(flip, rotation_deg=15.0 if axial else 0.0, shift=0.1, zoom=(0.8, 1.25))


@dataclass(frozen=True)
class Taken:
    """What a network took over: how many tensors whole, which in part (labels that the source knows), which begin anew."""

    whole: int
    part: tuple[str, ...]
    fresh: tuple[str, ...]


@torch.no_grad()
def take_what_fits(network: nn.Module, source: TrainedModel, labels: LabelSet) -> Taken:
    """Copy a source's weights: its trunk as it is, of its heads what belongs to background and to labels of the same name.

    Which tensors depend on the number of classes, and along which axes, is seen from the same architecture with one class more.

    Parameters
    ----------
    network
        Changed in place.
    source
        What is taken from.
    labels
        What the new network's classes mean, numbered from 1.

    Raises
    ------
    RecipeError
        If a tensor of the trunk is not the source's: that is another network.
    """
    mine, theirs = network.state_dict(), source.bare().state_dict()
    had, probe = _with_one_more_class(source)
    known = {0: 0} | {label.index: source.labels[label.name].index for label in labels if label.name in source.labels}
    if had != source.labels.class_count:  # heads of regions, or one logit against the rest: no row is a class of these
        known = {}
    whole, part, fresh = 0, [], []
    for key, tensor in mine.items():
        if key not in theirs:
            raise RecipeError("the source is another network", value=key, expected=source.recipe.network.architecture)
        old, more = theirs[key], probe[key]
        axes = [axis for axis, (a, b) in enumerate(zip(old.shape, more.shape, strict=True)) if a != b]
        if not axes and old.shape != tensor.shape:
            raise RecipeError(
                "the source is another network", value=f"{key}: {tuple(old.shape)}", expected=f"{key}: {tuple(tensor.shape)}"
            )
        if not axes:
            tensor.copy_(old)
            whole += 1
        elif known:
            _copy_classes(tensor, old, more, axes, known, had, len(labels) + 1)
            part.append(key)
        else:
            fresh.append(key)
    new = [label.name for label in labels if label.index not in known]
    _log.info("%d tensors taken over; new labels: %s", whole, ", ".join(new) or "none")
    return Taken(whole, tuple(part), tuple(fresh))


def _with_one_more_class(source: TrainedModel) -> tuple[int, dict[str, Tensor]]:
    """The source's number of classes, and the tensors that it would have with one more."""
    own = source.recipe.network
    family, full = config_of(own.architecture, own.config)
    key = FAMILIES[family].classes_key
    had = int(full.get(key, FAMILIES[family].classes))
    return had, build(own.architecture, {**own.config, key: had + 1}).state_dict()


def _copy_classes(
    tensor: Tensor, old: Tensor, more: Tensor, axes: Sequence[int], known: Mapping[int, int], had: int, have: int
) -> None:
    """Copy what belongs to known classes along every axis that counts classes, in one block or in several."""
    to = [torch.arange(size) for size in tensor.shape]
    since = [torch.arange(size) for size in old.shape]
    for axis in axes:
        blocks = range(more.shape[axis] - old.shape[axis])
        to[axis] = torch.tensor([block * have + new for block in blocks for new in known])
        since[axis] = torch.tensor([block * had + known[new] for block in blocks for new in known])
    tensor[torch.meshgrid(*to, indexing="ij")] = old[torch.meshgrid(*since, indexing="ij")]
