"""Train a recipe on a cohort."""

from __future__ import annotations

import json
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
from agseg.training.attention_strip import FOLDER, AttentionStrip, volume_gates
from agseg.training.checkpoint import LAST, Checkpoint
from agseg.training.cohort import open_cohort, provenance
from agseg.training.datasets import Task
from agseg.training.loop import Progress, train
from agseg.training.material import batches_of, kept_of, network_of, picture_statistics, task_of
from agseg.training.objective import objective
from agseg.training.recipe import Recipe
from agseg.training.scoring import validation_score
from agseg.training.splits import Split, read_split
from agseg.training.trained import RUN_FILE, Trained, write_run
from agseg.training.wrappers import EveryScore

__all__ = ["RunPlace", "TrainingReport", "run_training", "take_over"]

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


@dataclass(frozen=True)
class TrainingReport:
    """How a run ended."""

    recipe: str
    output: Path
    step: int
    steps: int
    loss: float
    best_score: float | None
    cases: dict[str, int]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**vars(self), "output": str(self.output)}


def run_training(
    recipe: Recipe, place: RunPlace, *, source: Trained | None = None, progress: ProgressCall | None = None
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
        If recipe, data and split do not fit together.
    """
    split = read_split(place.data, recipe.split, fold=place.fold)
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
        take_over(network, source, recipe)
    trained, about = _described(recipe, place, network, split)
    spent = _seconds_so_far(place.output) if place.resume else 0.0
    if not place.resume:
        write_run(place.output, recipe, about)
    ids = split.validation

    def described(current: nn.Module) -> Trained:
        return Trained(current, recipe, trained.labels, trained.kept, trained.statistics)

    def validate(current: nn.Module) -> float:
        return validation_score(described(current), place.data, ids)

    settings = recipe.loop
    if isinstance(network, EveryScore):
        weights: tuple[float, ...] = cast(Any, network.network).loss_weights
        settings = replace(settings, head_weights=tuple(weights))
    accelerator, devices = _fabric_device(place)
    began = time.monotonic()
    result = train(
        network,
        source=batches_of(recipe, place.data, split, workers=place.workers),
        loss=objective(recipe.loss, kept=trained.kept),
        settings=settings,
        folder=place.output,
        validate=validate if ids and settings.validate_every else None,
        watch=_watch(place, trained, ids, described) if place.attention else None,
        progress=progress,
        resume=place.resume,
        fingerprint=f"{recipe.fingerprint}:{place.fold}",
        accelerator=accelerator,
        devices=devices,
        stop_after=place.stop_after,
    )
    seconds = time.monotonic() - began
    write_run(place.output, recipe, {**about, "seconds": seconds + spent, "steps_done": result.step})
    return TrainingReport(
        recipe.name, place.output, result.step, settings.steps, result.loss, result.best_score, about["cases"], seconds
    )


def _watch(place: RunPlace, trained: Trained, ids: Sequence[str], described: Callable[[nn.Module], Trained]) -> AttentionStrip:
    """Pictures of the gates on the first validation case.

    Raises
    ------
    RecipeError
        If the run validates nothing, learns from pictures or frames, or has no gates.
    """
    if not ids or not trained.recipe.loop.validate_every or task_of(trained.recipe) is not Task.VOLUME:
        raise RecipeError("attention is watched where scans are validated", value=trained.recipe.name)
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
    path = folder / RUN_FILE
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.exists() else 0.0


def _described(recipe: Recipe, place: RunPlace, network: nn.Module, split: Split) -> tuple[Trained, dict[str, Any]]:
    """The network with the meaning of its outputs, and the content of run.json."""
    labels, kept, statistics = recipe.label_set, None, (0.0, 1.0)
    task = task_of(recipe)
    if task is not Task.FRAME:
        cohort = open_cohort(place.data)
        kept = kept_of(recipe, cohort.label_set)
        if kept is not None:
            labels = type(labels).from_mapping(dict(enumerate(cohort.label_set.names, start=1)))
        if task is Task.PICTURE:
            statistics = picture_statistics(cohort, split.train)
    about = {
        "agseg": __version__,
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "data": asdict(provenance(place.data)),
        "split": recipe.split,
        "fold": place.fold,
        "cases": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        "labels": {label.index: label.name for label in labels},
        "kept": kept,
        "statistics": statistics,
        "parameters": sum(p.numel() for p in network.parameters()),
        "machine": f"{platform.system()} {platform.machine()}, {place.device}",
        "seconds": 0.0,
        "steps_done": 0,
    }
    return Trained(network, recipe, labels, kept, statistics), about


def take_over(network: nn.Module, source: Trained, recipe: Recipe) -> int:
    """Copy a source's weights: all of them, or the parts that the recipe's ``start`` names; returns how many tensors.

    Raises
    ------
    RecipeError
        If they do not fit.
    """
    own = network.network if isinstance(network, EveryScore) else network
    state, theirs = own.state_dict(), source.bare().state_dict()
    if recipe.start is None:
        different = [
            k for k in state.keys() | theirs.keys() if k not in state or k not in theirs or state[k].shape != theirs[k].shape
        ]
        if different:
            raise RecipeError(
                "the source is another network", value=sorted(different)[:3], expected=recipe.network.architecture
            )
        own.load_state_dict(theirs)
        return len(theirs)
    taken = {}
    for part in recipe.start.parts:
        fitting = {k: v for k, v in theirs.items() if k.startswith(part) and k in state and state[k].shape == v.shape}
        if not fitting:
            raise RecipeError("the source has no such part", value=part, expected=recipe.start.recipe)
        taken.update(fitting)
    own.load_state_dict(state | taken)
    return len(taken)
