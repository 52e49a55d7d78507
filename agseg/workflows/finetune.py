"""Bring a trained network to another data set."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from agseg.errors import RecipeError
from agseg.laterality import sided
from agseg.models.catalogue import config_of
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.training.checkpoint import LAST
from agseg.training.datasets import dataset_names
from agseg.training.draws import Affine
from agseg.training.protocol import OWN
from agseg.training.recipe import LossName, NetworkChoice, Recipe, find_recipe, recipe_names
from agseg.training.settings import LoopSettings
from agseg.training.trained_model import RECIPE_FILE, TrainedModel, open_run
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.train import ProgressCall, RunPlace, TrainingReport, run_training

_log = logging.getLogger(__name__)


def finetune_recipe(target: str, source: TrainedModel) -> Recipe:
    """The recipe that brings a source network to a data set: the one for its very configuration, or for its architecture.

    Raises
    ------
    RecipeError
        If there is none; the message lists those that are.
    """
    known = [r for r in map(find_recipe, recipe_names()) if r.protocol == "aft" and r.dataset == target]
    network = source.recipe.network
    fitting = [r for r in known if r.network == network] or [r for r in known if r.network.architecture == network.architecture]
    # The packaged networks are of a published one's family, with widths of their own.
    fitting = fitting or [r for r in known if _family(r.network) == _family(network)]
    if not fitting:
        names = ", ".join(r.name for r in known) or "a data set with fine-tuning recipes"
        raise RecipeError(
            f"no recipe brings {network.architecture} to {target}",
            expected=names,
            hint="Name one with --recipe; or leave --to out, and it is fine-tuned to the labels that --data has.",
        )
    return fitting[0]


def _family(network: NetworkChoice) -> str:
    return config_of(network.architecture, network.config)[0]


def default_run(name: str, architecture: str, *, runs: Path) -> Path:
    """Where ``agseg train`` leaves a data set's network: the run of its recipe in the ``runs`` folder.

    Raises
    ------
    RecipeError
        If nothing has been trained there; the hint says what to type.
    """
    wanted = [r for r in map(find_recipe, recipe_names()) if r.dataset == name and r.protocol == "scr"]
    recipes = [r.name for r in wanted if r.network.architecture == architecture]
    for recipe in recipes:
        if (runs / recipe / LAST).exists():
            return runs / recipe
    hint = f"Train it first: agseg train {recipes[0]} --data DIR" if recipes else None
    raise RecipeError(
        f"no trained {architecture} of {name} is in the runs folder",
        path=runs,
        expected=" or ".join(recipes) or None,
        hint=hint,
    )


def source_network(
    source: str,
    *,
    architecture: str,
    runs: Path,
    manifest: Path | None = None,
    home: Path | None = None,
    offline: bool = False,
) -> TrainedModel:
    """The network to start from.

    Parameters
    ----------
    source
        A data set (its default run in ``runs``), a run folder, or the id of a weights entry.
    architecture
        Which of a data set's networks.
    runs
        Where runs are.
    manifest, home, offline
        For weights entries: a site's manifest, the cache, and whether the network may be used.

    Raises
    ------
    RecipeError
        If there is no such source.
    """
    if source in dataset_names():
        run = default_run(source, architecture, runs=runs)
        _log.warning("%s: the network of %s", source, run)
        return open_run(run)
    return starting_network(source, manifest=manifest, home=home, offline=offline)


def starting_network(
    source: str, *, manifest: Path | None = None, home: Path | None = None, offline: bool = False
) -> TrainedModel:
    """The network of a run's folder, or of a weights entry.

    Raises
    ------
    RecipeError
        If there is no such network.
    """
    folder = Path(source)
    if (folder / RECIPE_FILE).exists():
        return open_run(folder)
    if folder.is_dir():
        raise RecipeError("no run here", path=folder, expected=RECIPE_FILE)
    if folder.exists():
        raise RecipeError("this is a file", path=folder, expected="a run's folder")
    return entry_network(source, manifest=manifest, home=home, offline=offline)


def entry_network(source: str, *, manifest: Path | None, home: Path | None, offline: bool) -> TrainedModel:
    """The network of a weights entry: packaged, a site's own, or imported.

    Raises
    ------
    RecipeError
        If there is none of that id, or it is several networks merged.
    """
    known = Manifest.load(manifest, home=home)
    if source not in known.by_id:
        raise RecipeError(
            "this run's folder does not exist" if "/" in source else "no data set, run or weights entry has this name",
            value=source,
            expected=f"a data set ({', '.join(dataset_names())}), a run's folder, or weights ({', '.join(known.by_id)})",
        )
    if home is None:
        raise RecipeError("a weights entry needs a cache", value=source)
    return _from_entry(known.entry(source), WeightsCache(home, offline=offline))


def _from_entry(entry: WeightsEntry, cache: WeightsCache) -> TrainedModel:
    """A weights entry as if a recipe of that name had made it; of an ensemble the first network, with the others beside it."""
    if entry.parts or not entry.labels:
        raise RecipeError(
            "entries with parts, and frame classifiers, cannot be a start",
            value=entry.id,
            expected="one segmentation",
        )
    paths = cache.ensure(entry)
    recipe = Recipe(
        name=entry.id,
        title=entry.id,
        source="weights manifest",
        dataset=entry.id,
        split="",
        network=NetworkChoice(entry.architecture, dict(entry.config)),
        input=entry.input,
        loss=LossName.SOFT_DICE,
        batch=1,
        loop=LoopSettings(steps=1),
        labels={label.index: label.name for label in entry.labels},
    )
    networks = []
    for path in paths:
        network = build(entry.architecture, entry.config)
        load_strict(network, path)
        networks.append(network.eval())
    return TrainedModel(networks[0], recipe, entry.labels, members=tuple(networks[1:]), learned=entry.learned)


def finetune(source: TrainedModel, recipe: Recipe, place: RunPlace, *, progress: ProgressCall | None = None) -> TrainingReport:
    """Train on from a source's weights; network, labels and input are the source's, the rest is the recipe's.

    See :func:`agseg.workflows.train.run_training`.

    Raises
    ------
    RecipeError
        If the recipe is no fine-tuning, or the source does not know an organ of the data set.
    """
    if recipe.protocol == OWN.name:
        return run_training(recipe, place, source=source, progress=progress)
    if recipe.protocol != "aft":
        raise RecipeError("this recipe is no fine-tuning", value=recipe.name, expected="protocol: aft")
    own = source.recipe
    # The published row belongs to the published network only.
    published = recipe.published if own.network == recipe.network else None
    affine = _without_swaps(recipe.affine, own)
    adapted = replace(recipe, network=own.network, labels=own.labels, input=own.input, published=published, affine=affine)
    return run_training(adapted, place, source=source, progress=progress)


def _without_swaps(affine: Affine, own: Recipe) -> Affine:
    """The recipe's augmentation, without mirroring left and right where the source's labels have sides."""
    across = [axis for axis, code in enumerate(own.input.axis_codes) if code in "LR"] if sided(own.labels.values()) else []
    return replace(affine, flip=tuple(axis for axis in affine.flip if axis not in across))
