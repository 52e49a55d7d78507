"""Options and output that the training commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console

if TYPE_CHECKING:
    from agseg.training.history import Progress
    from agseg.workflows.train import ProgressCall, TrainingReport

__all__ = ["RECIPE", "Data", "Fold", "Runs", "Workers", "run_progress", "say"]

RECIPE = (
    "A recipe's name (docs/protocols.md lists them, and so does the answer to a wrong one), "
    "or a YAML file of your own, called what its `name:` says."
)
"""What a recipe is, for help texts."""

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="The cohort in nnU-Net's layout; default data/DATASET.")
]
Fold = Annotated[int, typer.Option("--fold", min=0, help="Which fold of the recipe's split.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that draw samples while the device computes.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where `agseg train` leaves its runs.")]


@contextmanager
def run_progress(description: str, *, quiet: bool) -> Iterator[ProgressCall]:
    """A bar with the time left and the loss."""
    with console.progress(description, quiet=quiet) as advance:

        def show(news: Progress) -> None:
            score = "" if news.score is None else f", score {news.score:.3f}"
            advance(news.step, news.steps, f"{description}: loss {news.loss:.3f}{score}")

        yield show


def say(report: TrainingReport, *, json: bool, quiet: bool) -> None:
    """How a run ended."""
    if json:
        console.document(report.to_dict())
    elif not quiet:
        best = "" if report.best_score is None else f", best validation score {report.best_score:.3f}"
        loss = "no finite loss" if report.loss is None else f"loss {report.loss:.3f}"
        news = "nothing left to do" if report.began_at == report.step else loss
        console.note(f"step {report.step} of {report.steps}, {news}{best}; {report.output}")
