"""The trend of volumes over the runs of one output folder: what the template draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from agseg.io.html.clock import local_minute
from agseg.labels import Label

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 12, 26


@dataclass(frozen=True)
class Point:
    """One organ in one run: when, median ml over the studies that this run measured, how many those are, and its place (px)."""

    date: str
    ml: str
    studies: int
    x: str
    y: str


@dataclass(frozen=True)
class Line:
    """The drawing of one organ (px)."""

    title: str
    points: tuple[Point, ...]
    most: str
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Repeated:
    """A study and organ that several runs measured, with every value."""

    study: str
    organ: str
    values: str


@dataclass(frozen=True)
class Trend:
    """All of it; ``runs`` is how many runs measured something."""

    runs: int
    lines: tuple[Line, ...]
    repeated: tuple[Repeated, ...]


def trend_of(runs: Sequence[Mapping[str, Any]]) -> Trend | None:
    """The trend, or None where fewer than two runs measured something, or none measured a volume.

    Parameters
    ----------
    runs
        Records as in run.json, oldest first, this run last. Only what a run measured itself counts (status ``done``).
    """
    measured = [run for run in runs if any(_is_of(run, study) for study in run["studies"])]
    if len(measured) < 2:
        return None
    medians: dict[str, list[tuple[str, float, int]]] = defaultdict(list)
    values: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run in measured:
        date = local_minute(str(run.get("finished", "")))
        for organ, found in _volumes(run).items():
            medians[organ].append((date, median(ml for _, ml in found), len(found)))
            for study, ml in found:
                values[(study, organ)].append(f"{date}: {ml:.1f} ml")
    repeated = tuple(
        Repeated(study, Label(1, organ).title, "; ".join(said))
        for (study, organ), said in sorted(values.items())
        if len(said) > 1
    )
    if not medians:
        return None
    return Trend(len(measured), tuple(_line(organ, line) for organ, line in sorted(medians.items())), repeated)


def _is_of(run: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
    """Whether this run measured the study; the record of a run in parts has other runs' studies too."""
    return study.get("status") == "done" and study.get("run") in (None, run.get("run_id"))


def _volumes(run: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Per organ the studies that this run measured, with their ml."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for study in run["studies"]:
        for organ in study.get("organs", ()) if _is_of(run, study) else ():
            if isinstance(organ.get("volume_ml"), int | float):
                found[str(organ["name"])].append((str(study["input"]), float(organ["volume_ml"])))
    return found


def _line(organ: str, medians: Sequence[tuple[str, float, int]]) -> Line:
    most = max(ml for _, ml, _ in medians) * 1.1 or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(medians) - 1)
    points = tuple(
        Point(
            date,
            f"{ml:.1f}",
            studies,
            f"{_LEFT + number * step:.1f}",
            f"{_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - ml / most):.1f}",
        )
        for number, (date, ml, studies) in enumerate(medians)
    )
    return Line(Label(1, organ).title, points, f"{most:.0f}")
