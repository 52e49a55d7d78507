"""Propose a recipe for a cohort of one's own, and say why each number is what it is.

The rules are nnU-Net's in spirit (Isensee et al., Nature Methods 2021): the median spacing, a patch as large as the memory
takes, pooling while a side is long enough, CT clipped to the percentiles of its labelled voxels. The network is agseg's own
Attention U-Net, which halves every axis alike; slices much thicker than their pixels get nnU-Net's plain U-Net, which need not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, write_text
from agseg.labels import Label
from agseg.laterality import sided
from agseg.training.augment_nnunet import THICK, Augmentation, AugmentKind
from agseg.training.cohort import Cohort, open_cohort
from agseg.training.description import PNG
from agseg.training.draws import Affine
from agseg.training.protocol import OWN
from agseg.training.recipe import LossName, Recipe, to_yaml
from agseg.training.settings import LoopSettings, Optimiser, Schedule
from agseg.training.splits import Split, all_folds, default_split
from agseg.training.survey import AXES, ChannelValues, Survey, survey
from agseg.weights.input_spec import Carry, ChannelSpec, InputSpec, Normalisation
from agseg.workflows.plan_size import Sizing, sized

ANISOTROPY = 3.0
"""Slices are thick where the coarsest spacing is more than this many times the finest (nnU-Net's threshold)."""

LONG = 1.5
"""A slice is long where one side is more than this many times the other (nnU-Net's threshold)."""

STEPS_PER_CASE = 500
STEPS = (2_000, 50_000)
"""Optimiser steps: so many per training case, and within these limits."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PlanRequest:
    """What is asked of a plan.

    Parameters
    ----------
    name
        Of the recipe; by default the data set's.
    architecture
        A family of the catalogue that is ``attention-unet``, ``unet`` or ``nnunet-plain``; None chooses by the spacing.
    flat
        Slices in place of patches.
    memory_gb
        What a step may take.
    steps, seed
        Optimiser steps (None: by the number of cases); of every random number.
    """

    name: str | None = None
    architecture: str | None = None
    flat: bool = False
    memory_gb: float = 8.0
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Proposal:
    """A recipe, and the reasons for its numbers, in the order of its keys."""

    recipe: Recipe
    reasons: dict[str, str] = field(default_factory=dict)

    def text(self, data: Path) -> str:
        """The recipe's file: the command, the reasons, the keys."""
        lines = [
            f"# agseg train {self.recipe.name}.yaml --data {data}",
            "# Proposed by `agseg plan`; change what you know better.",
        ]
        lines += [f"#   {key}: {reason}" for key, reason in self.reasons.items()]
        return "\n".join(lines) + "\n" + to_yaml(self.recipe)


def plan_recipe(data: Path, request: PlanRequest, *, output: Path, progress: Progress | None = None) -> Proposal:
    """Survey the cases that some fold trains on, and write a recipe for them as ``<output>/<name>.yaml``.

    Raises
    ------
    RecipeError
        If the data set is not described or cut yet, holds pictures, or the file is there already.
    """
    cohort = open_cohort(data)
    if cohort.file_ending == PNG:
        raise RecipeError(
            "plans are made for scans", path=data, value=PNG, hint="For pictures, copy train/recipes/focusnet-isic2017.yaml."
        )
    split = default_split(data)
    folds = all_folds(data, split)
    name = request.name or cohort.name
    path = output / f"{name}.yaml"
    if path.exists():
        raise RecipeError("this recipe is there already", path=path, hint="Give another name with --name, or remove it.")
    trained = sorted({case for fold in folds for case in (*fold.train, *fold.validation)})
    proposal = _proposal(cohort, survey(cohort, trained, progress=progress), folds, split, name, request)
    make_folder(output)
    write_text(path, proposal.text(data))
    return proposal


def _proposal(cohort: Cohort, found: Survey, folds: Sequence[Split], split: str, name: str, request: PlanRequest) -> Proposal:
    why: dict[str, str] = {}
    spacing = _spacing(found, why)
    architecture = _architecture(spacing, request, why)
    regions = () if cohort.meaning is None or not cohort.meaning.regions else tuple(x.index for x in _in_order(cohort))
    classes = len(cohort.label_set) + (0 if regions else 1)
    sizing = Sizing(spacing, architecture, request.flat, classes, request.memory_gb)
    tile, network, batch = sized(found, sizing, why)
    spec = InputSpec(
        found.channels[0].modality,
        axis_codes=AXES,
        spacing_mm=spacing,
        tile=tile,
        antialias=True,
        carry=Carry.LOGITS if regions else Carry.PROBABILITIES,
        regions=regions,
        channels=tuple(ChannelSpec(c.name, c.modality, **_normalised(c)) for c in found.channels[1:]),
        **_normalised(found.channels[0]),
    )
    for channel in found.channels:
        why[f"input ({channel.name})"] = _said(channel)
    cases = min(len(fold.train) for fold in folds)
    steps = request.steps or int(np.clip(cases * STEPS_PER_CASE, *STEPS))
    why["loop.steps"] = "given" if request.steps else f"{STEPS_PER_CASE} per case of {cases}, within {STEPS[0]} and {STEPS[1]}"
    every = max(1, steps // 20)
    recipe = Recipe(
        name=name,
        title=f"{architecture}, {cohort.name}",
        source="own data; proposed by agseg plan",
        dataset=cohort.name,
        split=split,
        protocol=OWN.name,
        network=network,
        labels=dict(enumerate(cohort.label_set.names, start=1))
        if not regions
        else {label.index: label.name for label in cohort.label_set},
        input=spec,
        loss=LossName.REGIONS if regions else LossName.DICE_CROSS_ENTROPY,
        batch=batch,
        affine=Affine(_mirrored(cohort, request, why), shift=0.1),
        augment=_augmented(spacing, tile, request, why),
        organ_share=0.33,
        loop=LoopSettings(
            steps=steps,
            optimiser=Optimiser.ADAMW,
            learning_rate=1e-3,
            weight_decay=1e-4,
            schedule=Schedule.POLY,
            warmup_steps=min(100, steps // 10),
            clip_norm=12.0,
            validate_every=every,
            checkpoint_every=every,
            log_every=max(1, min(20, steps // 100)),
            seed=request.seed,
        ),
    )
    why["organ_share"] = "a third of the patches hold a labelled voxel, as in nnU-Net"
    why["loss"] = (
        "every region against the rest" if regions else "Dice for overlap, cross-entropy for a gradient where Dice has none"
    )
    return Proposal(recipe, why)


def _in_order(cohort: Cohort) -> list[Label]:
    """Labels in the order in which their regions are painted."""
    return [cohort.label_set[name] for name in (cohort.meaning.regions if cohort.meaning else ())]


def _spacing(found: Survey, why: dict[str, str]) -> tuple[float, float, float]:
    median = np.median(found.spacings_mm, axis=0)
    chosen = median.copy()
    thick = int(median.argmax())
    said = "the median of the training cases"
    if median[thick] > ANISOTROPY * median.min() and np.median(found.shapes, axis=0)[thick] * ANISOTROPY < found.shapes.max():
        chosen[thick] = max(float(np.percentile(found.spacings_mm[:, thick], 10)), float(np.delete(median, thick).max()))
        said += f"; along {AXES[thick]} their 10th percentile, as slices are thick"
    why["input.spacing_mm"] = said
    a, b, c = (round(float(side), 3) for side in chosen)
    return a, b, c


def _architecture(spacing: Sequence[float], request: PlanRequest, why: dict[str, str]) -> str:
    able = ("attention-unet", "unet", "nnunet-plain")
    if request.architecture is not None:
        if request.architecture not in able:
            raise RecipeError("no plan is made for this network", value=request.architecture, expected=" or ".join(able))
        why["network"] = "given"
        return request.architecture
    if not request.flat and max(spacing) > ANISOTROPY * min(spacing):
        why["network"] = f"slices are {max(spacing) / min(spacing):.1f} times as thick as pixels: axes are halved one by one"
        return "nnunet-plain"
    why["network"] = "the packaged family"
    return "attention-unet"


def _normalised(channel: ChannelValues) -> dict[str, Any]:
    if channel.modality != "CT":
        return {"normalisation": Normalisation.ZSCORE}
    low, high = round(channel.low, 1), round(channel.high, 1)
    if not low < high:
        raise RecipeError("the labelled voxels all have one value", value=f"{channel.name}: {low}")
    return {
        "normalisation": Normalisation.CT,
        "window_hu": (low, high),
        "mean_std": (round(channel.mean, 2), max(round(channel.sd, 2), 0.01)),
    }


def _said(channel: ChannelValues) -> str:
    if channel.modality != "CT":
        return "a signal without a unit: (x - mean) / sd of each scan"
    return "HU clipped to the 0.5th and 99.5th percentile of the labelled voxels, then by their mean and sd"


def _augmented(spacing: Sequence[float], tile: Sequence[int], request: PlanRequest, why: dict[str, str]) -> Augmentation:
    """nnU-Net's, and how far it turns: all the way round in a plane, unless slices are much longer one way."""
    long = max(tile[:2]) > LONG * min(tile[:2])
    if request.flat:
        turn, said = (
            (15.0, "slices longer one way are turned a little") if long else (180.0, "slices are turned all the way round")
        )
    elif max(spacing) > THICK * min(spacing):
        turn, said = 180.0, "slices are thick, so that patches are turned in their plane alone, all the way round"
    else:
        turn, said = 30.0, "patches are turned about every axis, in mm"
    why["augment"] = f"nnU-Net's ranges and chances; {said}"
    return Augmentation(AugmentKind.NNUNET, rotation_deg=turn)


def _mirrored(cohort: Cohort, request: PlanRequest, why: dict[str, str]) -> tuple[int, ...]:
    axes = (0, 1) if request.flat else (0, 1, 2)
    if sided(cohort.label_set.names):
        why["affine.flip"] = "no mirroring of left and right: labels have sides"
        return axes[1:]
    why["affine.flip"] = "no label has a side"
    return axes
