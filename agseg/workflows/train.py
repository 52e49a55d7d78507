"""Train a recipe on a cohort."""

from __future__ import annotations

import copy
import logging
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from agseg import __version__
from agseg.errors import RecipeError
from agseg.models.catalogue import facts
from agseg.training.attention_strip import FOLDER, AttentionStrip, volume_gates
from agseg.training.beside import NARROWED, experiment_of
from agseg.training.case_cache import CaseCache
from agseg.training.checkpoint import LAST, Checkpoint
from agseg.training.cohort import Provenance, open_cohort, provenance
from agseg.training.datasets import Task
from agseg.training.history import Progress
from agseg.training.leakage import LEARNED, Stage, stage_of, stages_in, started_from
from agseg.training.loaders import batches_of, ignores, kept_of, network_of, picture_statistics, regions_of, sides_of, task_of
from agseg.training.loop import Batch, Loss, Score, train
from agseg.training.objective import objective
from agseg.training.protocol import OWN
from agseg.training.recipe import Recipe
from agseg.training.scoring import validation_score
from agseg.training.splits import Split
from agseg.training.trained_model import SOURCE, TrainedModel, write_run
from agseg.training.wrappers import EveryScore, favour
from agseg.workflows.finetune_own import take_what_fits
from agseg.workflows.resume import about_run, as_begun, begun_with, check_same_data
from agseg.workflows.take_over import take_over

_log = logging.getLogger(__name__)

ProgressCall = Callable[[Progress], None]


@dataclass(frozen=True)
class RunPlace:
    """Where a run happens.

    Parameters
    ----------
    data, output
        The cohort's folder; the run's folder.
    fold
        Which fold of the recipe's split.
    device
        ``auto``, ``cpu``, ``gpu`` ...
    processes
        Processes on this machine that ``torchrun`` started; 1 without it.
    workers
        Processes that draw samples.
    resume
        Go on from the folder's last checkpoint.
    stop_after
        Leave after this step, with a checkpoint.
    attention
        At every validation, take a picture of each attention gate on the first validation case.
    only
        Of the training side, these cases alone: how a case is left out to measure on it. Empty: all.
    cache
        Where prepared scans are kept from one run to the next; None keeps them in memory alone.
    """

    data: Path
    output: Path
    fold: int = 0
    device: str = "auto"
    processes: int = 1
    workers: int = 0
    resume: bool = False
    stop_after: int | None = None
    attention: bool = False
    only: tuple[str, ...] = ()
    cache: CaseCache | None = None


@dataclass(frozen=True)
class TrainingReport:
    """How a run ended; ``loss`` is None where no step was left to take, or where it is no number.

    ``interrupted`` says that a signal ended it, with a checkpoint to go on from.
    """

    recipe: str
    output: Path
    began_at: int
    step: int
    steps: int
    loss: float | None
    best_score: float | None
    cases: dict[str, int]
    seconds: float
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**vars(self), "output": str(self.output)}


def run_name(recipe: Recipe, fold: int) -> str:
    """What the folder of a run is called where nobody names one: the recipe, and the fold where there are several."""
    return f"{recipe.name}-fold-{fold}" if fold or recipe.protocol == OWN.name else recipe.name


def run_training(
    recipe: Recipe, place: RunPlace, *, source: TrainedModel | None = None, progress: ProgressCall | None = None
) -> TrainingReport:
    """Train, and leave a run folder that ``finetune``, ``evaluate`` and ``export`` read.

    Parameters
    ----------
    recipe
        What to do.
    place
        Where.
    source
        The network to start from (fine-tuning, or a recipe's earlier stage); fresh weights without it.
    progress
        See :func:`agseg.training.loop.train`.

    Raises
    ------
    RecipeError
        If recipe, data and split do not fit together, or a run is to go on with other data than it began with.
    """
    _check_depths(recipe)
    begun = begun_with(place.output) if place.resume else []  # read before the cases are
    recipe = as_begun(recipe, place.output) if place.resume else recipe
    split = sides_of(recipe, place.data, fold=place.fold, only=place.only)
    if recipe.start is not None and source is None and not place.resume:
        raise RecipeError(
            "this recipe starts from another one's result",
            value=recipe.start.recipe,
            hint=f"Train it first, then give its folder with --from: agseg train {recipe.start.recipe}",
        )
    if not place.resume and (place.output / LAST).exists():
        raise RecipeError("the folder holds a run already", path=place.output, hint="Give --resume, or another folder with -o.")
    torch.manual_seed(recipe.loop.seed)  # the fresh weights belong to the run as well
    network = network_of(recipe)
    if source is not None and not place.resume:
        if recipe.protocol == OWN.name and recipe.start is None:
            take_what_fits(network, source, recipe.label_set)
        else:
            take_over(network, source, recipe)
    stage = stage_of(recipe, place.data, split, cache=place.cache)
    digest = stage.digest(split.test)
    if place.resume:
        check_same_data(begun, recipe, stage, digest, fold=place.fold, data=place.data, run=place.output)
    trained, about = _described(recipe, place, network, split)
    about["start"] = about_run(place.output).get("start") if place.resume else None if source is None else source.recipe.name
    loss = _loss(recipe, place, trained)
    about[LEARNED] = [found.to_dict() for found in (stage, *_earlier(place, source))]
    about[SOURCE] = about_run(place.output).get(SOURCE) if place.resume else _origin(source)
    spent = _seconds_so_far(place.output) if place.resume else 0.0
    if not place.resume:
        write_run(place.output, recipe, about)
    ids = split.validation

    def described(current: nn.Module) -> TrainedModel:
        if recipe.wins_from:
            current = favour(copy.deepcopy(current), recipe.wins_from)
        return TrainedModel(current, recipe, trained.labels, trained.kept, trained.statistics)

    def validate(current: nn.Module) -> Score:
        return validation_score(described(current), place.data, ids)

    settings = recipe.loop
    if isinstance(network, EveryScore):
        weights: tuple[float, ...] = cast(Any, network.network).loss_weights
        settings = replace(settings, head_weights=tuple(weights))
    accelerator, devices = _fabric_device(place)
    began = time.monotonic()
    result = train(
        network,
        source=batches_of(recipe, place.data, split, workers=place.workers, cache=place.cache),
        loss=loss,
        settings=settings,
        folder=place.output,
        transform=_channels_last if recipe.patches is not None else None,
        validate=validate if ids and settings.validate_every else None,
        watch=_watch(place, trained, ids, described) if place.attention else None,
        progress=progress,
        resume=place.resume,
        fingerprint=f"{recipe.fingerprint}:{place.fold}:{digest}",
        accelerator=accelerator,
        devices=devices,
        stop_after=min((stop for stop in (place.stop_after, recipe.stop_after) if stop is not None), default=None),
    )
    seconds = time.monotonic() - began
    write_run(place.output, recipe, {**about, "seconds": seconds + spent, "steps_done": result.step})
    last = result.loss if math.isfinite(result.loss) else None
    return TrainingReport(
        recipe=recipe.name,
        output=place.output,
        began_at=result.began_at,
        step=result.step,
        steps=settings.steps,
        loss=last,
        best_score=result.best_score,
        cases=about["cases"],
        seconds=seconds,
        interrupted=result.interrupted and place.stop_after is None,
    )


def _channels_last(batch: Batch, generator: torch.Generator) -> Batch:
    """Patches in the memory layout of their network (:func:`agseg.training.loaders.network_of`)."""
    return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last_3d))


def _loss(recipe: Recipe, place: RunPlace, trained: TrainedModel) -> Loss:
    """The recipe's loss, as the cohort's labels want it."""
    if task_of(recipe) is Task.FRAME:
        return objective(recipe.loss, kept=trained.kept)
    if recipe.cases:
        return objective(recipe.loss, ignores=True)
    cohort = open_cohort(place.data)
    return objective(recipe.loss, kept=trained.kept, regions=regions_of(recipe, cohort), ignores=ignores(cohort))


def _check_depths(recipe: Recipe) -> None:
    """A network that can be cut off says which of its depths learn: nobody shall cut at one that never did.

    Raises
    ------
    RecipeError
        If the recipe has no ``head_weights``, or another number of them than depths.
    """
    deepest = facts(recipe.network.architecture, recipe.network.config).deepest
    weights = recipe.loop.head_weights
    if deepest > 1 and (weights is None or len(weights) != deepest):
        alone = [0] * (deepest - 1) + [1]
        raise RecipeError(
            "a network that can be cut off at several depths needs a weight for the loss of each",
            value=f"head_weights: {None if weights is None else list(weights)}",
            expected=f"{deepest} numbers",
            hint=f"loop: {{head_weights: {[1] * deepest}}} trains all; {alone} the deepest alone, which cannot be pruned.",
        )


def _watch(
    place: RunPlace, trained: TrainedModel, ids: Sequence[str], described: Callable[[nn.Module], TrainedModel]
) -> AttentionStrip:
    """Pictures of the gates on the first validation case.

    Raises
    ------
    RecipeError
        If the run validates nothing, learns from pictures or frames, or has no gates.
    """
    if not ids or not trained.recipe.loop.validate_every or task_of(trained.recipe) is not Task.VOLUME:
        raise RecipeError("--attention needs a volumetric recipe with a validation split", value=trained.recipe.name)
    cohort = open_cohort(place.data)
    volume = cohort.read_volume(ids[0])
    mask = cohort.read_mask(ids[0], grid=volume.grid)
    strip = volume_gates(place.output / FOLDER, trained, volume, mask, described=described)
    strip.resume(Checkpoint.read(place.output / LAST).step if place.resume else 0)
    return strip


def _fabric_device(place: RunPlace) -> tuple[str, Any]:
    """``gpu:1`` as Fabric says it; under ``torchrun`` every process takes its own device."""
    kind, _, number = place.device.partition(":")
    if place.processes > 1:
        return kind, place.processes
    return kind, [int(number)] if number.isdigit() else 1


def _seconds_so_far(folder: Path) -> float:
    """What the finished legs of a run have taken."""
    return float(about_run(folder).get("seconds", 0.0))


def _origin(source: TrainedModel | None) -> dict[str, Any] | None:
    """Where the weights come from: recipe, published row of its experiment, and whether it learned from synthetic images."""
    if source is None:
        return None
    return {"recipe": source.recipe.name, "published": experiment_of(source), "synthetic": source.is_synthetic}


def _earlier(place: RunPlace, source: TrainedModel | None) -> tuple[Stage, ...]:
    """What the network had learned from before this run: as the run began with, where it goes on."""
    if place.resume:
        return (stages_in(about_run(place.output)) or ())[1:]
    return started_from(source)


def _described(recipe: Recipe, place: RunPlace, network: nn.Module, split: Split) -> tuple[TrainedModel, dict[str, Any]]:
    """The network with the meaning of its outputs, and the content of run.json."""
    labels, kept, statistics = recipe.label_set, None, (0.0, 1.0)
    learned_on, data = recipe.dataset, Provenance()
    task = task_of(recipe)
    if not recipe.cases:
        data = provenance(place.data)
    if task is not Task.FRAME and not recipe.cases:
        cohort = open_cohort(place.data)
        learned_on = cohort.name
        if learned_on != recipe.dataset:
            _log.warning(
                "the recipe is for %s, this data set is %s: the run says that it learned from that", recipe.dataset, learned_on
            )
        kept = kept_of(recipe, cohort.label_set)
        if kept is not None:
            labels = type(labels).from_mapping(dict(enumerate(cohort.label_set.names, start=1)))
        if task is Task.PICTURE:
            statistics = picture_statistics(cohort, split.train)
    about = {
        "agseg": __version__,
        "recipe": recipe.name,
        "dataset": learned_on,
        "data": asdict(data),
        "split": recipe.split,
        "fold": place.fold,
        NARROWED: bool(place.only),
        "cases": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "labels": {label.index: label.name for label in labels},
        "kept": kept,
        "statistics": statistics,
        "parameters": sum(p.numel() for p in network.parameters()),
        "machine": f"{platform.system()} {platform.machine()}, {place.device}",
        "seconds": 0.0,
        "steps_done": 0,
    }
    return TrainedModel(network, recipe, labels, kept, statistics), about
