"""Change single values of a recipe from the command line: ``--set loop.learning_rate=3e-4``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from agseg.binding import bind
from agseg.errors import RecipeError, UsageError
from agseg.training.recipe import Recipe, plain


def overridden(
    recipe: Recipe, settings: Sequence[str] = (), *, steps: int | None = None, seed: int | None = None, batch: int | None = None
) -> Recipe:
    """A recipe with some values replaced.

    Parameters
    ----------
    settings
        ``key=value``; keys of inner mappings after a dot, the value as YAML writes it.
    steps, seed, batch
        Short for ``loop.steps``, ``loop.seed`` and ``batch``; a warm-up longer than half the steps is cut to that.

    Raises
    ------
    UsageError
        If a setting is none, or names no key.
    RecipeError
        If the recipe does not hold together any more.
    """
    given = [*settings, *(f"{key}={value}" for key, value in _short(recipe, steps, seed, batch).items())]
    if not given:
        return recipe
    content = plain(asdict(recipe))
    for setting in given:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError("not a setting", value=setting, expected="key=value, e.g. loop.learning_rate=3e-4")
        try:
            found = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError("not a value", value=setting, expected="key=value, the value as YAML writes it") from error
        _place(content, key, found, setting)
    try:
        return bind(yaml.safe_dump(content, sort_keys=False), Recipe)
    except RecipeError as error:  # without its line, which is that of no file
        message = re.sub(r"^line \d+: ", "", error.message)
        raise RecipeError(message, value=error.value, expected=error.expected, hint=error.hint) from error


def _short(recipe: Recipe, steps: int | None, seed: int | None, batch: int | None) -> dict[str, int]:
    short = {"loop.steps": steps, "loop.seed": seed, "batch": batch}
    if steps is not None and recipe.loop.warmup_steps > steps // 2:
        short["loop.warmup_steps"] = steps // 2
    return {key: value for key, value in short.items() if value is not None}


def _place(content: dict[str, Any], key: str, value: object, setting: str) -> None:
    *outer, last = key.split(".")
    inside: Any = content
    for name in outer:
        inside = inside.get(name) if isinstance(inside, dict) else None
    # A network's configuration takes keys that it does not name yet; its builder refuses those that it does not know.
    free = outer == ["network", "config"]
    if not isinstance(inside, dict) or (last not in inside and not free):
        known = ", ".join(map(str, inside if isinstance(inside, dict) else content))
        raise UsageError("the recipe has no such key", value=setting, expected=f"one of {known}")
    inside[last] = value


def keys_of(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe by its key as ``--set`` writes it, e.g. ``loop.steps``."""
    return dict(_flat(plain(asdict(recipe))))


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict):
        yield prefix, content
        return
    for key, value in content.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
