"""``make weights``: train every packaged network by its recipe from the open scans beside the checkout."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from agseg.errors import RecipeError
from agseg.inference.allocator import keep_freed_memory
from agseg.models.load import load_strict
from agseg.training.checkpoint import LAST
from agseg.training.history import Progress
from agseg.training.recipe import Recipe, find_recipe, packaged_names
from agseg.training.trained_model import TrainedModel, open_run
from agseg.weights.digest import Digest
from agseg.workflows.train import RunPlace, run_training

_log = logging.getLogger(__name__)

OPEN_SCANS = Path("..") / "shared" / "data"
"""Where ``make weights`` looks for the open scans, seen from the checkout."""

BUILD = Path("build") / "weights"
"""Where ``make weights`` works: a run's folder per recipe."""

NETWORK_FILE = "network.safetensors"
"""The finished network in a run's folder, half precision, as it is packaged."""


def make_weights(
    recipe: Recipe, *, data: Path, build: Path, workers: int = 1, source: TrainedModel | None = None
) -> Path | None:
    """Train a recipe in a folder of its name, or go on with it there; returns the finished network's file.

    None if a signal ended the run, with a checkpoint to go on from.

    A recipe that starts from another one starts from its finished file, as whoever has only the packaged weights would, or from
    ``source``.

    Parameters
    ----------
    data
        The folder of open scans.
    build
        The folder of all runs.
    workers
        Processes that draw samples.
    source
        The network that the recipe's start stands for, where no run in ``build`` is it.
    """
    folder = build / recipe.name
    place = RunPlace(data=data, output=folder, workers=workers, resume=(folder / LAST).exists())
    if source is None and recipe.start is not None:
        source = _finished(build / recipe.start.recipe)
    report = run_training(recipe, place, source=source, progress=_log_progress)
    if report.interrupted:
        return None
    file = folder / NETWORK_FILE
    save_half(open_run(folder, best=False).bare(), file)
    digest = Digest.of(file)
    _log.info("%s: %s bytes, sha256 %s, %s steps", file, digest.size_bytes, digest.sha256, report.step)
    return file


def _finished(folder: Path) -> TrainedModel:
    """A run's network as its finished file holds it, rounded to half precision."""
    trained = open_run(folder, best=False)
    load_strict(trained.bare(), folder / NETWORK_FILE)
    return trained


def save_half(network: nn.Module, path: Path) -> None:
    """The network's tensors as a safetensors file, floating point as fp16."""
    state: dict[str, torch.Tensor] = network.state_dict()
    tensors = {key: (value.half() if value.dtype.is_floating_point else value) for key, value in state.items()}
    save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, path)


def in_order(recipes: list[Recipe]) -> list[Recipe]:
    """Recipes, each after the one that it starts from.

    Raises
    ------
    RecipeError
        If a recipe starts from one that is not among them, or from itself by a detour.
    """
    waiting, done = {recipe.name: recipe for recipe in recipes}, dict[str, Recipe]()
    while waiting:
        ready = [recipe for recipe in waiting.values() if recipe.start is None or recipe.start.recipe in done]
        if not ready:
            raise RecipeError("recipes start from each other or from one that is not there", value=sorted(waiting))
        done |= {recipe.name: waiting.pop(recipe.name) for recipe in ready}
    return list(done.values())


def main() -> None:
    """Every packaged network, into ``build/weights``; goes on with what an earlier call left. Progress goes to the log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    for recipe in in_order([find_recipe(name) for name in packaged_names()]):
        if make_weights(recipe, data=OPEN_SCANS, build=BUILD) is None:
            _log.info("%s: interrupted; the next call goes on from its checkpoint", recipe.name)
            return


def _log_progress(news: Progress) -> None:
    _log.info("step %s of %s, loss %.3f, %.2f s per step", news.step, news.steps, news.loss, news.seconds_per_step)


if __name__ == "__main__":
    main()
