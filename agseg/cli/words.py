"""What people type, as what they mean: lengths of time with a unit, names separated by commas, devices in capitals."""

from __future__ import annotations

from collections.abc import Iterable

import typer

ALL_ORGANS = "all"
"""``--organ all`` is what no ``--organ`` at all is: every organ that the weights, or the default weights, know."""


def lower_case(text: str | None) -> str | None:
    """``CPU`` is ``cpu``."""
    return None if text is None else text.strip().lower()


def seconds(text: str | float) -> float:
    """A length of time: ``90s``, ``5m``, ``1h``, ``2d``; a number alone is seconds."""
    return _seconds(text, number_is_s=1.0)


def minutes(text: str | float) -> float:
    """A length of time in minutes: ``300``, ``300m``, ``5h``; a number alone is minutes."""
    return _seconds(text, number_is_s=60.0) / 60.0


def _seconds(text: str | float, *, number_is_s: float) -> float:
    from agseg.errors import UsageError
    from agseg.io.pacs.days import seconds_of

    try:
        return float(text) * number_is_s
    except ValueError:
        pass
    try:
        return seconds_of(text)
    except UsageError as error:
        raise typer.BadParameter(f"{text!r} is no length of time, expected {error.expected}, or a number") from None


def words_of(given: Iterable[str]) -> list[str]:
    """The words of an option that is repeated, ``sc,pdf`` as two of them."""
    return [word.strip() for text in given for word in text.split(",")]


def organs_of(given: Iterable[str]) -> tuple[str, ...]:
    """The organs that were named, ``liver,pancreas`` as two of them; empty for all.

    Raises
    ------
    UsageError
        If a name is empty.
    """
    from agseg.errors import UsageError

    names = words_of(given)
    if not all(names):
        raise UsageError(
            "an organ without a name", value=", ".join(map(repr, given)), hint="agseg segment ./studies --organ liver"
        )
    return () if any(name.lower() == ALL_ORGANS for name in names) else tuple(dict.fromkeys(names))
