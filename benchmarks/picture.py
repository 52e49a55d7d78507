"""One picture of results.json: where each pipeline's time goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GROUPS = {
    "reading": ("read",),
    "to the model's grid": ("prepare", "temporary_files"),
    "network and blending": ("network",),
    "back to the source's grid": ("restore", "segment", "softmax", "resample_out", "argmax"),
    "writing": ("write",),
}
COLOURS = ("#4477aa", "#66ccee", "#bbbbbb", "#ee6677", "#228833")


def draw(results: Path, picture: Path) -> None:
    """Stacked bars per size, with and without the network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = json.loads(results.read_text())["runs"]
    panels = sorted({(tuple(run["size"]), not run["network"]) for run in runs})
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(9, 0.6 + 1.9 * len(panels)), squeeze=False, layout="constrained")
    for axis, (size, without) in zip(axes[:, 0], panels, strict=True):
        rows = [run for run in runs if tuple(run["size"]) == size and run["network"] != without]
        _panel(axis, rows)
        least = min(run["n"] for run in rows)
        told = "x".join(map(str, size)) + (", all but the network" if without else "")
        axis.set_title(f"{told} (medians of at least {least})", fontsize=9, loc="left")
    axes[0, 0].legend(fontsize=7, loc="lower right", frameon=False)
    axes[-1, 0].set_xlabel("seconds")
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)


def _panel(axis: Any, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda run: -run["total_s"])
    names = [run["pipeline"] + (f" {run['mode']}" if run["pipeline"] == "agseg" else "") for run in rows]
    left = [0.0] * len(rows)
    for (group, stages), colour in zip(GROUPS.items(), COLOURS, strict=True):
        width = [sum(run["stages_s"].get(stage, 0.0) for stage in stages) for run in rows]
        axis.barh(names, width, left=left, color=colour, label=group)
        left = [start + extent for start, extent in zip(left, width, strict=True)]
    for name, end in zip(names, left, strict=True):
        axis.text(end, name, f" {end:.2f} s", va="center", fontsize=7)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.1)
    axis.spines[["top", "right"]].set_visible(False)
