"""The trend of volumes over the runs of one output folder, as small drawings and as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

from agseg.labels import Label

__all__ = ["trend_section"]

_WIDTH, _HEIGHT = 320, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 12, 26


@dataclass(frozen=True)
class _Point:
    """One organ in one run: date, median ml over the studies that this run measured, and how many those are."""

    date: str
    median_ml: float
    studies: int


def trend_section(runs: Sequence[Mapping[str, Any]]) -> str:
    """HTML of the trend, or an empty text where there is only one run.

    Parameters
    ----------
    runs
        Records as in run.json, oldest first, this run last. Only what a run measured itself counts (status ``done``).
    """
    measured = [run for run in runs if any(_is_of(run, study) for study in run["studies"])]
    if len(measured) < 2:
        return ""
    points: dict[str, list[_Point]] = defaultdict(list)
    repeated: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for run in measured:
        date = str(run.get("finished", ""))[:16].replace("T", " ")
        for organ, found in _volumes(run).items():
            points[organ].append(_Point(date, median(ml for _, ml in found), len(found)))
            for study, ml in found:
                repeated[(study, organ)].append((date, ml))
    figures = "".join(_figure(organ, line) for organ, line in sorted(points.items()))
    return (
        '<section aria-labelledby="h-trend"><h2 id="h-trend">Trend of volumes</h2>'
        f"<p>Median volume per organ over the studies of each of {len(measured)} runs in this folder, oldest first. "
        "A jump may mean another scanner, protocol or weights.</p>"
        f'<div class="trends">{figures}</div>{_repeated(repeated)}</section>'
    )


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


def _figure(organ: str, line: Sequence[_Point]) -> str:
    title = escape(Label(1, organ).title)
    top = max(point.median_ml for point in line) * 1.1 or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(line) - 1)
    places = [
        (_LEFT + number * step, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - point.median_ml / top))
        for number, point in enumerate(line)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    said = "; ".join(f"{point.date}: {point.median_ml:.1f} ml in {point.studies}" for point in line)
    rows = "".join(
        f'<tr><td>{escape(p.date)}</td><td class="n">{p.median_ml:.1f}</td><td class="n">{p.studies}</td></tr>' for p in line
    )
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'aria-label="Median {title} volume by run: {escape(said)}">'
        f'<text x="{_LEFT - 6}" y="{_TOP + 4}" text-anchor="end">{top:.0f} ml</text>'
        f'<text x="{_LEFT - 6}" y="{_HEIGHT - _BOTTOM + 4}" text-anchor="end">0</text>'
        f'<polyline class="line" points="{path}"/>{dots}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{escape(line[0].date[:10])}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(line[-1].date[:10])}</text></svg>'
        f'<table><thead><tr><th scope="col">run</th><th scope="col" class="n">median ml</th>'
        f'<th scope="col" class="n">studies</th></tr></thead><tbody>{rows}</tbody></table></figure>'
    )


def _repeated(repeated: Mapping[tuple[str, str], Sequence[tuple[str, float]]]) -> str:
    """Studies that were measured more than once, with every value."""
    rows = "".join(
        f"<tr><td>{escape(study)}</td><td>{escape(Label(1, organ).title)}</td>"
        f"<td>{escape('; '.join(f'{date}: {ml:.1f} ml' for date, ml in values))}</td></tr>"
        for (study, organ), values in sorted(repeated.items())
        if len(values) > 1
    )
    if not rows:
        return ""
    return (
        "<h3>Studies measured more than once</h3>"
        '<div class="wide" tabindex="0" role="region" aria-label="Studies measured more than once"><table><thead><tr>'
        '<th scope="col">study</th><th scope="col">organ</th><th scope="col">volumes</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
