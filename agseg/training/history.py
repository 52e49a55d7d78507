"""Training logs: ``log.csv``, TensorBoard events and ``curves.png``."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.training.pace import STANDING, Speed

LOG = "log.csv"
CURVES = "curves.png"
DRAWN_EVERY_S = 60.0
"""The curves are drawn anew after a validation, at most this often (s)."""

_COLUMNS = ("step", "loss", "learning_rate", "seconds_per_step", "score", "samples_per_second", "wait_share")


@dataclass(frozen=True)
class Progress:
    """What a progress callback hears, once per ``log_every`` steps; ``loss`` is the mean since it was last told.

    ``score`` and its ``parts`` (the Dice of each organ) are there after a validation; ``speed`` is that of the steps since.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds_per_step: float
    score: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    speed: Speed = STANDING


@dataclass
class History:
    """An open log. ``writes`` is False on all processes but the first."""

    folder: Path
    writes: bool
    _board: Any = None
    _drawn: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, folder: Path, *, from_step: int, writes: bool) -> History:
        """Open the logs; lines beyond ``from_step`` belong to steps that a resumed run takes again, and are cut off."""
        history = cls(folder, writes)
        if not writes:
            return history
        path = folder / LOG
        rows = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= from_step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        history._board = _board(folder, from_step)
        return history

    def add(self, news: Progress) -> None:
        """One line, flushed."""
        if not self.writes:
            return
        row = {
            "step": news.step,
            "loss": f"{news.loss:.6f}",
            "learning_rate": f"{news.learning_rate:.3e}",
            "seconds_per_step": f"{news.seconds_per_step:.3f}",
            "score": "" if news.score is None else f"{news.score:.5f}",
            "samples_per_second": f"{news.speed.samples_per_second:.3g}",
            "wait_share": f"{news.speed.wait_share:.3f}",
        }
        with (self.folder / LOG).open("a", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writerow(row)
        if self._board is not None:
            self._board.add_scalar("loss", news.loss, news.step)
            self._board.add_scalar("learning_rate", news.learning_rate, news.step)
            self._board.add_scalar("speed/samples_per_second", news.speed.samples_per_second, news.step)
            self._board.add_scalar("speed/wait_share", news.speed.wait_share, news.step)
            if news.score is not None:
                self._board.add_scalar("score", news.score, news.step)
            for name, part in news.parts.items():
                self._board.add_scalar(f"score/{name}", part, news.step)
        if news.score is not None and time.monotonic() - self._drawn > DRAWN_EVERY_S:
            draw_curves(self.folder)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Finish the events and draw the curves."""
        if not self.writes:
            return
        if self._board is not None:
            self._board.close()
        draw_curves(self.folder)


def _board(folder: Path, from_step: int) -> Any:
    """TensorBoard's writer, or None where the package is not installed: the CSV says the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)


def draw_curves(folder: Path) -> Path | None:
    """``curves.png`` from ``log.csv``: loss and, where there is one, the validation score; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    with (folder / LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    left.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], color="tab:blue", linewidth=0.8)
    left.set_xlabel("optimiser step")
    left.set_ylabel("training loss", color="tab:blue")
    scored = [r for r in rows if r["score"]]
    if scored:
        right = left.twinx()
        right.plot([int(r["step"]) for r in scored], [float(r["score"]) for r in scored], color="tab:orange", marker="o")
        right.set_ylabel("validation score", color="tab:orange")
    figure.savefig(folder / CURVES, dpi=110)
    return folder / CURVES
