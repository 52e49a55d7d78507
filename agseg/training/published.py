"""Published figures of the papers (``train/published.yaml``), shown beside ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from agseg.binding import load
from agseg.io.resources import resource_path


@dataclass(frozen=True)
class Figure:
    """A printed mean; its standard deviation, and its difference to a baseline, where they are printed."""

    mean: float
    sd: float | None = None
    gain: float | None = None


@dataclass(frozen=True)
class PublishedRow:
    """One method of a printed table.

    Parameters
    ----------
    source
        Paper and table, or section.
    method
        Its name in print.
    scores
        Organ (or class) to metric to figure.
    setting
        What tells it from other rows of that name: split, protocol, capacity.
    start
        Key of the row of the network that this one's weights come from; empty where they come from nothing.
    pooled
        Whether the ratios are of the counts of all cases together, not means over cases.
    flag
        What cannot be right about the print.
    """

    source: str
    method: str
    scores: dict[str, dict[str, Figure]]
    setting: str = ""
    start: str = ""
    pooled: bool = False
    flag: str = ""


@dataclass(frozen=True)
class _Published:
    rows: dict[str, PublishedRow] = field(default_factory=dict)


@lru_cache(1)
def published_rows() -> dict[str, PublishedRow]:
    """Every row by its key, which begins with the name of the data set that it was measured on."""
    return load(resource_path("train") / "published.yaml", _Published).rows


def published_row(key: str | None) -> PublishedRow | None:
    """The row with this key, or None where nothing is published."""
    return None if key is None else published_rows().get(key)
