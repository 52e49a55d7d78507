"""The picture of a prune curve: Figure 13 of ANU-Net (2020), and what each depth saves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agseg.extras import require
from agseg.io.atomic import replacing

_LARGEST_CIRCLE_PT2 = 1200.0
"""Area of the deepest network's circle (square points); areas are in proportion to parameters."""


def require_matplotlib() -> None:
    """Say before the work, not after it, that the picture cannot be drawn.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    require("matplotlib.figure", purpose="the curve's picture")


def draw_curve(path: Path, curve: Mapping[str, Any]) -> None:
    """Write the picture: Dice against time with circles as large as the network, Dice per organ, and cost, by depth.

    Parameters
    ----------
    path
        PNG to write.
    curve
        The content of ``curve.json``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    points = curve["points"]
    _figure_13(left, points)
    _dice_by_depth(middle, points)
    _cost_by_depth(right, points)
    kind = "synthetic scans" if curve["synthetic"] else "scans"
    about = f"{curve['weights']} on {len(curve['cases'])} {kind} of {curve['data']}; {curve['device']}, {curve['precision']}"
    figure.suptitle(about, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _figure_13(axes: Any, points: list[dict[str, Any]]) -> None:
    scored = [p for p in points if p["mean_dice"] is not None]
    largest = max(p["parameters"] for p in points)
    seconds, dice = [p["seconds"] for p in scored], [p["mean_dice"] for p in scored]
    axes.plot(seconds, dice, color="0.6", linewidth=0.8)
    axes.scatter(seconds, dice, s=[_LARGEST_CIRCLE_PT2 * p["parameters"] / largest for p in scored], alpha=0.45)
    for p in scored:
        said = f"L{p['depth']}, {p['parameters'] / 1e6:.3g} M"
        place = (p["seconds"], p["mean_dice"])
        axes.annotate(said, place, (0, -26), textcoords="offset points", ha="center", va="center", fontsize=8)
    axes.margins(0.25)
    axes.set(xlabel="seconds of the network per case", ylabel="Dice, mean over organs", title="area of a circle: parameters")


def _dice_by_depth(axes: Any, points: list[dict[str, Any]]) -> None:
    for organ in points[0]["dice"]:
        known = [(p["depth"], p["dice"][organ]) for p in points if p["dice"][organ] is not None]
        axes.plot([d for d, _ in known], [v for _, v in known], marker="o", label=organ.replace("_", " "))
    axes.set(xlabel="depth", ylabel="Dice", xticks=[p["depth"] for p in points], ylim=(0, 1), title="Dice per organ")
    axes.legend(fontsize=7)


def _cost_by_depth(axes: Any, points: list[dict[str, Any]]) -> None:
    deepest = points[-1]
    names = {
        "seconds": "seconds",
        "parameters": "parameters",
        "read_bytes": "bytes read",
        "peak_bytes": "peak memory of a tile",
    }
    for key, name in names.items():
        if deepest[key]:
            axes.plot([p["depth"] for p in points], [p[key] / deepest[key] for p in points], marker="o", label=name, alpha=0.7)
    axes.set(xlabel="depth", ylabel="share of the deepest", xticks=[p["depth"] for p in points], title="cost")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
