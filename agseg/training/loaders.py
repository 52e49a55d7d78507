"""Data loaders of a recipe, from a cohort's folder: batches of cases or frames of one side of a split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agseg.errors import AgsegError, RecipeError
from agseg.labels import Label, LabelSet
from agseg.models.catalogue import facts
from agseg.models.registry import build
from agseg.training.anatomy import OUTSIDE
from agseg.training.batches import DrawBatches
from agseg.training.case_cache import CaseCache
from agseg.training.cases import IGNORE, Case, prepare_case
from agseg.training.cohort import Cohort, open_cohort
from agseg.training.datasets import Task, dataset, dataset_names
from agseg.training.description import IGNORED, PNG, read_description
from agseg.training.draws import FrameDraws, PictureDraws, VolumeDraws
from agseg.training.frames import open_frames
from agseg.training.open_cases import listed_split, phantom_cases, read_cases, scene_cases
from agseg.training.patch_draws import PatchDraws
from agseg.training.protocol import Logits, kept_classes, protocol
from agseg.training.recipe import Recipe
from agseg.training.sample import Sample
from agseg.training.splits import Split, read_split
from agseg.training.wrappers import EveryScore
from agseg.volume import LabelMask
from agseg.weights.input_spec import VOLUMETRIC

_log = logging.getLogger(__name__)

BACKGROUND_PLANE = "Background"
"""The class of frames that show no standard plane."""

PictureStatistics = tuple[float, float]
"""Mean and standard deviation of the training pictures (0 to 255)."""

_CACHED_PICTURES = 4096

TOLD_EVERY = 10
"""Cases between two lines of the log while they are read."""


def task_of(recipe: Recipe) -> Task:
    """What kind of data a recipe learns from; for data of one's own, what its network sees tells."""
    if recipe.dataset in dataset_names():
        return dataset(recipe.dataset).task
    if facts(recipe.network.architecture, recipe.network.config).classifies_frames:
        return Task.FRAME
    return Task.VOLUME if recipe.input.modality in VOLUMETRIC else Task.PICTURE


def network_of(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights, as the loop trains it."""
    network = build(recipe.network.architecture, recipe.network.config)
    if recipe.patches is not None:
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]
    if task_of(recipe) is not Task.FRAME:
        return network
    # Thin two-dimensional layers: with channels last a step takes a little over half the time on a CPU.
    return EveryScore(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def kept_of(recipe: Recipe, labelled: LabelSet) -> tuple[int, ...] | None:
    """The classes whose logits count in this run, or None for all.

    Raises
    ------
    RecipeError
        If the recipe wants an organ that the data set does not label, and its protocol does not drop logits.
    """
    if protocol(recipe.protocol).logits is Logits.TARGET:
        return kept_classes(recipe.label_set, labelled)
    missing = [name for name in recipe.label_set.names if name not in labelled]
    if missing:
        raise RecipeError("the data set does not label this organ", value=missing[0], expected=", ".join(labelled.names))
    return None


def relabelled(mask: LabelMask, labels: LabelSet) -> LabelMask:
    """The same mask with another label set's indices, by name; organs it does not have become background."""
    table = np.zeros(256, dtype=np.uint8)
    for label in mask.label_set:
        if label.name in labels:
            table[label.index] = labels[label.name].index
    return LabelMask(table[mask.labels], mask.grid, labels)


def ignores(cohort: Cohort) -> bool:
    """Whether its label images hold voxels that nobody labelled."""
    return cohort.meaning is not None and cohort.meaning.ignored is not None


def regions_of(recipe: Recipe, cohort: Cohort) -> tuple[tuple[int, ...], ...]:
    """The label values that make up the region of each head; empty where classes exclude each other.

    Raises
    ------
    RecipeError
        If recipe and data set do not agree on whether there are regions.
    """
    made_of = {} if cohort.meaning is None else cohort.meaning.regions
    if bool(made_of) != bool(recipe.input.regions):
        raise RecipeError(
            "the data set's labels are regions, and the recipe has none"
            if made_of
            else "the recipe has regions, and the data set's labels are none",
            path=cohort.root,
            value=f"regions: {list(recipe.input.regions)}",
            expected=f"regions: {[cohort.label_set[name].index for name in made_of]}",
        )
    names = {label.index: label.name for label in recipe.label_set}
    return tuple(tuple(made_of[names[painted]]) for painted in recipe.input.regions)


def check_input(recipe: Recipe, cohort: Cohort) -> None:
    """See that a recipe's network sees what a cohort holds.

    Raises
    ------
    RecipeError
        If modality or channels differ, or the files are of another kind.
    """
    if (cohort.file_ending == PNG) != (task_of(recipe) is Task.PICTURE):
        raise RecipeError("the recipe is for other files", path=cohort.root, value=cohort.file_ending, expected=recipe.name)
    if task_of(recipe) is Task.PICTURE:
        return
    spec = recipe.input
    wanted = (spec.modality, *(channel.modality for channel in spec.channels))
    if wanted != cohort.modalities:
        raise RecipeError(
            "the recipe's network sees other images than the data set holds",
            path=cohort.root,
            value=", ".join(f"{name} ({m})" for name, m in zip(cohort.channels, cohort.modalities, strict=True)),
            expected=", ".join(wanted),
            hint="`agseg plan DIR` proposes a recipe for this data.",
        )


def load_case(cohort: Cohort, case_id: str, recipe: Recipe) -> Case:
    """One scan on the recipe's model grid, its labels numbered as the network's classes."""
    volume = cohort.read_volume(case_id)
    classes = recipe.label_set
    if ignores(cohort):
        classes = LabelSet((*classes, Label(IGNORE, IGNORED)))
    stored = cohort.read_mask(case_id, grid=volume.grid)
    structures = _structures(stored, cohort) if recipe.structures else None
    return prepare_case(case_id, volume, relabelled(stored, classes), recipe.input, structures=structures)


def _structures(stored: LabelMask, cohort: Cohort) -> NDArray[np.uint8]:
    """The values of a cohort's label image, 0 where nobody labelled.

    Raises
    ------
    RecipeError
        If the data set has a label whose number says something else in :mod:`agseg.training.anatomy`.
    """
    ours = [label for label in cohort.label_set if label.index >= OUTSIDE]
    if ours:
        raise RecipeError(
            "scans with labels of this number cannot be recoloured",
            path=cohort.root,
            value=ours[0].index,
            expected=f"below {OUTSIDE}",
        )
    ignored = None if cohort.meaning is None else cohort.meaning.ignored
    return stored.labels if ignored is None else np.where(stored.labels == ignored, 0, stored.labels).astype(np.uint8)


def _prepared(cohort: Cohort, case_id: str, recipe: Recipe, cache: CaseCache | None) -> Case:
    """One scan as samples are drawn from it, kept in the cache where there is one: normalised, but for patches, drawn in HU."""
    if cache is None:
        return load_case(cohort, case_id, recipe)

    def make() -> Case:
        case = load_case(cohort, case_id, recipe)
        return case if recipe.patches is not None else case.as_input(recipe.input)

    facts = {
        "input": {key: value for key, value in recipe.input.identity().items() if key not in ("tile", "overlap")},
        "normalised": recipe.patches is None,
        "structures": bool(recipe.structures),
        "labels": recipe.labels,
        "values": {label.index: label.name for label in cohort.in_files},
        "ignores": ignores(cohort),
        "modalities": cohort.modalities,
    }
    files = (*cohort.image_paths(case_id), cohort.label_path(case_id))
    return cache.case(case_id, files=files, facts=facts, make=make)


def sides_of(recipe: Recipe, root: Path, *, fold: int = 0, only: Sequence[str] = ()) -> Split:
    """The sides of the cohort's split, or of the recipe's own list of cases.

    Parameters
    ----------
    only
        Cases of the training side to which it is narrowed; empty: all.

    Raises
    ------
    RecipeError
        If there is no such split, fold or case.
    """
    split = listed_split(recipe, fold=fold) if recipe.cases else _cohort_split(recipe, root, fold)
    if not only:
        return split
    if unknown := sorted(set(only) - set(split.train)):
        raise RecipeError("not on the training side", path=root, value=unknown, expected=", ".join(split.train))
    return replace(split, train=tuple(case for case in split.train if case in only))


def _cohort_split(recipe: Recipe, root: Path, fold: int) -> Split:
    """A cohort's side; where it has no such split, that may be because it is another data set than the recipe's."""
    try:
        return read_split(root, recipe.split, fold=fold)
    except RecipeError as error:
        with suppress(AgsegError):
            name = read_description(root).name
            if name != recipe.dataset:
                error.hint = f"The recipe is for {recipe.dataset}, this data set is {name}. {error.hint or ''}".strip()
        raise


def batches_of(recipe: Recipe, root: Path, split: Split, *, workers: int = 0, cache: CaseCache | None = None) -> DrawBatches:
    """Batches from the training side of a split; neither validation nor test cases are opened.

    Parameters
    ----------
    workers
        Processes that draw.
    cache
        Where prepared scans are kept from one run to the next.
    """
    task = task_of(recipe)
    if task is Task.FRAME:
        draws: torch.utils.data.Dataset[Sample] = _frames(recipe, root, split.train)
    elif task is Task.PICTURE:
        draws = _pictures(recipe, root, split.train)
    else:
        listed = bool(recipe.cases)
        cases = read_cases(recipe, root, only=split.train) if listed else _cohort_cases(recipe, root, split.train, cache)
        draws = _volumes(recipe, cases)
    return DrawBatches(draws, size=recipe.batch, workers=workers)


def _cohort_cases(recipe: Recipe, root: Path, ids: Sequence[str], cache: CaseCache | None) -> list[Case]:
    cohort = open_cohort(root)
    check_input(recipe, cohort)
    kept_of(recipe, cohort.label_set)
    cases = []
    for number, case_id in enumerate(ids, start=1):
        cases.append(_prepared(cohort, case_id, recipe, cache))
        if number % TOLD_EVERY == 0 or number == len(ids):
            _log.info("%d of %d cases are ready", number, len(ids))
    return cases


def _volumes(recipe: Recipe, cases: Sequence[Case]) -> VolumeDraws | PatchDraws:
    """The papers' draws, or patches of the cases and of the made-up ones that the recipe puts beside them."""
    settings = recipe.patches
    if settings is None:
        seed, share, augment = recipe.loop.seed, recipe.organ_share, recipe.augment
        return VolumeDraws(cases, recipe.input, recipe.affine, seed=seed, organ_share=share, augment=augment)
    every = [*cases, *scene_cases(recipe), *phantom_cases(recipe)]
    tissues = {number: structure.tissue for number, structure in recipe.structures.items()}
    return PatchDraws(every, settings, recipe.input, seed=recipe.loop.seed, tissues=tissues)


def picture_statistics(cohort: Cohort, ids: Sequence[str]) -> PictureStatistics:
    """Mean and standard deviation over all pixels and channels of the pictures (0 to 255)."""
    total = squares = 0.0
    count = 0
    for case_id in ids:
        picture = cohort.read_picture(case_id).astype(np.float64)
        total, squares, count = total + picture.sum(), squares + (picture**2).sum(), count + picture.size
    mean = total / max(count, 1)
    return float(mean), float(np.sqrt(max(squares / max(count, 1) - mean**2, 1e-6)))


def _pictures(recipe: Recipe, root: Path, ids: Sequence[str]) -> PictureDraws:
    cohort = open_cohort(root)
    check_input(recipe, cohort)
    kept_of(recipe, cohort.label_set)
    mean, sd = picture_statistics(cohort, ids)

    @lru_cache(_CACHED_PICTURES)
    def read(number: int) -> tuple[Tensor, Tensor, str]:
        pixels = cohort.read_picture(ids[number])
        # Eight bits are kept as such, four times as many in the same memory.
        pixels = pixels if pixels.max(initial=0) > 255 else pixels.astype(np.uint8)
        return torch.from_numpy(pixels), torch.from_numpy(cohort.read_picture_labels(ids[number]).copy()), ids[number]

    tile = (recipe.input.tile[0], recipe.input.tile[1])
    return PictureDraws(
        read,
        count=len(ids),
        tile=tile,
        affine=recipe.affine,
        mean=mean,
        sd=sd,
        seed=recipe.loop.seed,
        shift=recipe.channel_shift,
        augment=recipe.augment,
    )


def _frames(recipe: Recipe, root: Path, ids: Sequence[str]) -> FrameDraws:
    cohort = open_frames(root)
    order = tuple(dataset(recipe.dataset).labels.values())
    strangers = sorted({cohort.rows[i].label for i in ids} - set(order))
    if strangers:
        raise RecipeError("frames of a class that the data set does not have", value=strangers[0], expected=", ".join(order))

    def read(number: int) -> Tensor:
        return torch.from_numpy(cohort.read(ids[number]).copy())

    return FrameDraws(
        read,
        classes=[order.index(cohort.rows[i].label) for i in ids],
        background=order.index(BACKGROUND_PLANE),
        balance=recipe.balance,
        tile=(recipe.input.tile[0], recipe.input.tile[1]),
        affine=recipe.affine,
        seed=recipe.loop.seed,
    )
