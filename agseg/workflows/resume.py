"""Whether a training run may go on: with the recipe, the fold and the cases that it began with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.training.checkpoint import LAST, Checkpoint
from agseg.training.leakage import Stage, stages_in
from agseg.training.overrides import keys_of
from agseg.training.recipe import Recipe
from agseg.training.trained_model import RECIPE_FILE, RUN_FILE

WORDS = ("title", "source", "published", "minutes_on_gpu")
"""Keys of a recipe that change no step of a run: a correction of them does not end it."""


def about_run(folder: Path) -> dict[str, Any]:
    """The content of run.json, nothing where there is none."""
    path = folder / RUN_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def begun_with(folder: Path) -> list[str]:
    """Digest of the recipe, fold and (since 2026-11) digest of the data that the run of a folder began with."""
    return Checkpoint.read(folder / LAST).fingerprint.split(":")


def as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the title, source, published row and estimate that the run in a folder began with.

    Raises
    ------
    RecipeError
        If anything else differs; with the keys.
    """
    if not (folder / RECIPE_FILE).exists():
        return recipe
    begun = load(folder / RECIPE_FILE, Recipe)
    worded = replace(recipe, **{word: getattr(begun, word) for word in WORDS})
    if worded.fingerprint == begun.fingerprint:
        return worded
    before, now = keys_of(begun), keys_of(worded)
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    shown = [f"{key}: {now.get(key)} (it began with {before.get(key)})" for key in changed[:5]]
    raise RecipeError(
        "the folder holds another run",
        path=folder,
        value=f"{', '.join(shown)}{', ...' if len(changed) > 5 else ''}",
        expected=f"the recipe that it began with, which is its {RECIPE_FILE}",
        hint=_LONGER if set(changed) <= _LENGTH else "Give that recipe, or train in another folder with -o.",
    )


_LENGTH = frozenset({"loop.steps", "loop.warmup_steps"})
_LONGER = (
    "The learning rate follows from the number of steps. To train on, begin another run with this one's weights: "
    "--from RUN -o ANOTHER."
)


def check_same_data(
    begun: Sequence[str], recipe: Recipe, stage: Stage, digest: str, *, fold: int, data: Path, run: Path
) -> None:
    """See that a run that goes on has the fold and the cases it began with; the loop itself tells another recipe.

    Parameters
    ----------
    begun
        What :func:`begun_with` gives.
    recipe, fold
        With which it is to go on.
    stage, digest
        The cases that it would learn from, and their digest.
    data, run
        The cohort's folder; the run's folder.

    Raises
    ------
    RecipeError
        If it has not.
    """
    if begun[0] != recipe.fingerprint:
        return
    if begun[1:2] != [str(fold)]:
        raise RecipeError("the folder holds the run of another fold", path=run, value=fold, expected=f"--fold {begun[1]}")
    if begun[2:] == [digest]:
        return
    if len(begun) == 2:
        raise RecipeError(
            "this run was begun by an earlier version, which did not record its data",
            path=run,
            hint="Train again in another folder: nobody can tell whether these are the cases that it began with.",
        )
    before = stages_in(about_run(run)) or ()
    changed = before[0].differing(stage) if before else ()
    raise RecipeError(
        "data or split are not those that this run began with",
        path=data,
        value=f"{', '.join(changed[:5])}{', ...' if len(changed) > 5 else ''}" if changed else "other test cases",
        hint="Give the data it began with, or train again in another folder.",
    )
