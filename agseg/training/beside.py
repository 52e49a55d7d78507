"""Which published row ours may stand beside: that of the paper's network, weights, data set and split, on patients."""

from __future__ import annotations

from agseg.training.datasets import dataset, dataset_names
from agseg.training.overrides import keys_of
from agseg.training.protocol import protocol
from agseg.training.published import PublishedRow, published_row
from agseg.training.recipe import Recipe, find_recipe, recipe_names
from agseg.training.splits import plan_of
from agseg.training.trained_model import SOURCE, TrainedModel

NARROWED = "narrowed"
"""Key of run.json: whether it was trained on some of its cases alone (``--only``)."""

PRIVATE = "The paper's data are private: whether these are they, only you know."
"""What a table says beside a published row of such data."""

_SAME_EXPERIMENT = frozenset(
    {"name", "title", "source", "minutes_on_gpu", "batch"}
    | {f"loop.{key}" for key in ("seed", "accumulate", "precision", "validate_every", "checkpoint_every", "log_every")}
)
"""Keys that may differ from a paper's recipe; batch and ``accumulate`` as long as a step has as many samples."""


def changed_keys(recipe: Recipe) -> tuple[str, ...]:
    """In what a recipe differs from the experiment whose published row it names; nothing where it names none."""
    named = [] if recipe.published is None else [r for r in map(find_recipe, recipe_names()) if r.published == recipe.published]
    return min((_differing(recipe, theirs) for theirs in named), key=len, default=())


def _differing(recipe: Recipe, theirs: Recipe) -> tuple[str, ...]:
    one, other = keys_of(recipe), keys_of(theirs)
    found = [key for key in one | other if key not in _SAME_EXPERIMENT and one.get(key) != other.get(key)]
    samples = [r.batch * r.loop.accumulate for r in (recipe, theirs)]
    return (*found, *(["batch"] if samples[0] != samples[1] else []))


def changes_of(trained: TrainedModel) -> tuple[str, ...]:
    """In what a run differs from the experiment whose published row its recipe names: keys, and what its record tells."""
    about, recipe = trained.about or {}, trained.recipe
    if recipe.published is None:
        return ()
    return (
        *changed_keys(recipe),
        *(["--only"] if about.get(NARROWED) else []),
        *(["the run is not finished"] if about.get("steps_done", recipe.loop.steps) < recipe.loop.steps else []),
    )


def experiment_of(trained: TrainedModel) -> str | None:
    """The key of the published row whose experiment a run repeats, None if it names none or differs."""
    return None if changes_of(trained) else trained.recipe.published


def row_beside(trained: TrainedModel, *, cohort: str, protocol_name: str, split: str, synthetic: bool) -> str | None:
    """The row's key, or None where none belongs to this evaluation.

    A network that is trained on the data has its recipe's row, on its recipe's split. One that is applied to other data has
    the row of that data's default split, if the paper printed one. Where the paper's weights came from another network, ours
    must as well. Whether private data are the paper's nobody can check; see :func:`is_private`.

    Parameters
    ----------
    trained
        The network; a recipe of one's own names no row, and one that was changed has none.
    cohort
        Name of the data set that is scored.
    protocol_name, split
        What was done, and on which split.
    synthetic
        Whether the scored images show no patient.
    """
    recipe = trained.recipe
    repeated = experiment_of(trained)
    if repeated is None or synthetic or trained.is_synthetic:
        return None
    trains = protocol(protocol_name).trains
    key = repeated if trains else f"{cohort}.{protocol_name}.{recipe.network.architecture}"
    row = published_row(key)
    if row is None or not key.startswith(f"{cohort}."):
        return None
    own_split = recipe.split if trains else plan_of(cohort).default
    return key if split == own_split and _started_alike(trained, row, trains=trains) else None


def _started_alike(trained: TrainedModel, row: PublishedRow, *, trains: bool) -> bool:
    """Whether the weights come from where the paper's came from: another experiment, an earlier stage, or nothing."""
    origin = (trained.about or {}).get(SOURCE) or {}
    if row.start:
        return row.start == (origin.get("published") if trains else experiment_of(trained))
    start = trained.recipe.start
    if start is None or not trains:
        return not (trains and origin)
    stage = find_recipe(start.recipe)
    return bool(origin) and (origin.get("recipe"), origin.get("published")) == (stage.name, stage.published)


def is_private(cohort: str) -> bool:
    """Whether a paper's data set cannot be had."""
    return cohort in dataset_names() and dataset(cohort).licence == "private"
