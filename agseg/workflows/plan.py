"""Propose a recipe for a cohort of one's own, and say why each number is what it is.

The rules are nnU-Net's in spirit (Isensee et al., Nature Methods 2021): the median spacing, a patch as large as the memory
takes, pooling while a side is long enough, CT clipped to the percentiles of its labelled voxels. The network is agseg's own
Attention U-Net, which halves every axis alike; slices much thicker than their pixels get nnU-Net's plain U-Net, which need not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, write_text
from agseg.labels import Label
from agseg.training.cohort import PNG, Cohort, open_cohort
from agseg.training.draws import Affine
from agseg.training.protocol import OWN
from agseg.training.recipe import LossName, NetworkChoice, Recipe, to_yaml
from agseg.training.settings import LoopSettings, Optimiser, Schedule
from agseg.training.splits import Split, all_folds, default_split
from agseg.training.survey import AXES, ChannelValues, Survey, survey
from agseg.weights.entry import Carry, ChannelSpec, InputSpec, Normalisation

__all__ = ["PlanRequest", "Proposal", "plan_recipe"]

ANISOTROPY = 3.0
"""Slices are thick where the coarsest spacing is more than this many times the finest (nnU-Net's threshold)."""

LEAST_SIDE = 4
"""Voxels that are left of a patch's side at the coarsest level (nnU-Net's)."""

MOST_POOLINGS = 4

WIDTHS = {True: 16, False: 32}
"""Channels of the first level, in 3D and in 2D."""

MOST_CHANNELS = 320
"""nnU-Net's limit in 3D."""

BYTES_PER_ACTIVATION = 40
"""What a voxel and channel of one level costs in training: ten maps of float32 (a rule of thumb, see docs/own-data.md)."""

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
    base = WIDTHS[not request.flat]
    tile, network, batch = _sized(found, spacing, architecture, base, cohort, request, why)
    regions = () if cohort.meaning is None or not cohort.meaning.regions else tuple(x.index for x in _in_order(cohort))
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
        affine=Affine(_mirrored(cohort, request, why), rotation_deg=15.0, shift=0.1, zoom=(0.7, 1.4)),
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


def _sized(
    found: Survey,
    spacing: Sequence[float],
    architecture: str,
    base: int,
    cohort: Cohort,
    request: PlanRequest,
    why: dict[str, str],
) -> tuple[tuple[int, int, int], NetworkChoice, int]:
    """Tile, network and batch that fit the memory."""
    median = np.median(found.extents_mm / np.array(spacing), axis=0)
    sides = [max(LEAST_SIDE, round(float(side))) for side in median]
    dims = 2 if request.flat else 3
    if request.flat:
        sides[2] = 1
    classes = len(cohort.label_set) + (0 if cohort.meaning is not None and cohort.meaning.regions else 1)
    budget = request.memory_gb * 1e9
    batch = 2 if dims == 3 else 12
    while True:
        strides = _strides(sides, spacing, dims, alike=architecture != "nnunet-plain")
        multiples = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
        tile = [_rounded(side, m) for side, m in zip(sides, multiples, strict=False)] + [1] * (3 - dims)
        widths = [min(base * 2**level, MOST_CHANNELS) for level in range(len(strides))]
        bytes_ = _bytes(tile, strides, widths) * batch
        if bytes_ <= budget:
            break
        axis = int(np.argmax([side / whole for side, whole in zip(tile[:dims], median, strict=False)]))
        if tile[axis] <= LEAST_SIDE * multiples[axis]:
            axis = int(np.argmax(tile[:dims]))
        if tile[axis] <= LEAST_SIDE * 2:
            raise RecipeError("no patch fits this memory", value=f"{request.memory_gb} GB", expected="more, with --memory")
        sides[axis] = max(LEAST_SIDE, tile[axis] - max(multiples[axis], tile[axis] // 8))
    why["input.tile"] = (
        f"of a median scan of {' x '.join(str(round(float(s))) for s in median)} voxels, what a batch of {batch} may take of "
        f"{request.memory_gb:g} GB (about {bytes_ / 1e9:.1f})"
    )
    why["batch"] = "the smallest that is not one scan alone" if dims == 3 else "slices are small"
    config: dict[str, Any] = {"dims": dims, "in_channels": len(found.channels), "classes": classes}
    if architecture == "nnunet-plain":
        levels = len(strides)
        config |= {
            "features_per_stage": widths,
            "kernel_sizes": _kernels(strides, spacing, dims),
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * levels,
            "n_conv_per_stage_decoder": [2] * (levels - 1),
        }
    else:
        config["widths"] = widths
    a, b, c = tile
    return (a, b, c), NetworkChoice(architecture, config), batch


def _strides(sides: Sequence[int], spacing: Sequence[float], dims: int, *, alike: bool) -> list[tuple[int, ...]]:
    """Pooling per level, the first being none: while a side is long enough; one by one, the finest axes first, or all alike."""
    size, mm = [float(side) for side in sides[:dims]], [float(side) for side in spacing[:dims]]
    strides: list[tuple[int, ...]] = [(1,) * dims]
    while len(strides) <= MOST_POOLINGS:
        able = [axis for axis in range(dims) if size[axis] >= 2 * LEAST_SIDE]
        if alike and len(able) < dims and len(strides) > 1:
            break
        if not able:
            break
        finest = min(mm[axis] for axis in able)
        halved = range(dims) if alike else [axis for axis in able if mm[axis] < 2 * finest]
        stride = tuple(2 if axis in halved else 1 for axis in range(dims))
        size, mm = [s / n for s, n in zip(size, stride, strict=True)], [m * n for m, n in zip(mm, stride, strict=True)]
        strides.append(stride)
    return strides if len(strides) > 1 else [*strides, (2,) * dims]


def _kernels(strides: Sequence[Sequence[int]], spacing: Sequence[float], dims: int) -> list[list[int]]:
    """3 along an axis once its spacing is within twice the finest, else 1 (nnU-Net's rule)."""
    mm, kernels = [float(side) for side in spacing[:dims]], []
    for stride in strides:
        mm = [m * n for m, n in zip(mm, stride, strict=True)]
        kernels.append([3 if side < 2 * min(mm) else 1 for side in mm])
    return kernels


def _rounded(side: int, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(multiple, round(side / multiple) * multiple)


def _bytes(tile: Sequence[int], strides: Sequence[Sequence[int]], widths: Sequence[int]) -> float:
    voxels, total = float(math.prod(tile)), 0.0
    for stride, width in zip(strides, widths, strict=True):
        voxels /= math.prod(stride)
        total += voxels * width * BYTES_PER_ACTIVATION
    return total


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


def _mirrored(cohort: Cohort, request: PlanRequest, why: dict[str, str]) -> tuple[int, ...]:
    axes = (0, 1) if request.flat else (0, 1, 2)
    if any({"left", "right"} & set(name.split("_")) for name in cohort.label_set.names):
        why["affine.flip"] = "no mirroring of left and right: labels have sides"
        return axes[1:]
    why["affine.flip"] = "no label has a side"
    return axes
