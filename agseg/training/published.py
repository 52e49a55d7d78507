"""The papers' figures (``train/published.yaml``), to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from agseg.binding import load
from agseg.io.resources import resource_path

__all__ = ["Figure", "PublishedRow", "published_row"]


@dataclass(frozen=True)
class Figure:
    """A printed mean, and its standard deviation where one is printed."""

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class PublishedRow:
    """One row of a table: organ to metric to figure; ``flag`` says what is wrong with the print."""

    source: str
    scores: dict[str, dict[str, Figure]]
    flag: str = ""


@dataclass(frozen=True)
class _Published:
    rows: dict[str, PublishedRow] = field(default_factory=dict)


@lru_cache(1)
def _all() -> dict[str, PublishedRow]:
    return load(resource_path("train") / "published.yaml", _Published).rows


def published_row(key: str | None) -> PublishedRow | None:
    """The row with this key, or None where nothing is published."""
    return None if key is None else _all().get(key)
