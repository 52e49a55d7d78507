"""Which published row ours may stand beside: that of the paper's network, weights, data set and split, on patients."""

from __future__ import annotations

from agseg.training.datasets import dataset, dataset_names
from agseg.training.overrides import keys_of
from agseg.training.protocol import protocol
from agseg.training.published import published_row
from agseg.training.recipe import Recipe, find_recipe, recipe_names
from agseg.training.splits import plan_of
from agseg.training.trained_model import SOURCE, TrainedModel

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


def experiment_of(recipe: Recipe) -> str | None:
    """The key of the published row that a recipe repeats, None if it names none or was changed."""
    return None if changed_keys(recipe) else recipe.published


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
    repeated = experiment_of(recipe)
    if repeated is None or synthetic or trained.is_synthetic:
        return None
    trains = protocol(protocol_name).trains
    key = repeated if trains else f"{cohort}.{protocol_name}.{recipe.network.architecture}"
    row = published_row(key)
    if row is None or not key.startswith(f"{cohort}."):
        return None
    origin = (trained.about or {}).get(SOURCE)
    came_from = repeated if not trains else None if origin is None else origin.get("published")
    # A row that starts from nothing is of a network that did: not of one that began with --from.
    started_alike = row.start == came_from if row.start else not (trains and origin)
    own_split = recipe.split if trains else plan_of(cohort).default
    return key if split == own_split and started_alike else None


def is_private(cohort: str) -> bool:
    """Whether a paper's data set cannot be had."""
    return cohort in dataset_names() and dataset(cohort).licence == "private"
