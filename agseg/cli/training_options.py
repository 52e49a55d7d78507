"""Options and output that the training commands share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.errors import ExitCode, UsageError
from agseg.training.pace import STARVED

if TYPE_CHECKING:
    from agseg.training.case_cache import CaseCache
    from agseg.training.history import Progress
    from agseg.workflows.train import ProgressCall, TrainingReport

LINE_EVERY_S = 30.0
"""In a log, progress is a line this often (s), and after every validation."""

CACHE_GB = 100.0
"""What a cache may take where nobody says."""

RECIPE = "A recipe's name (`agseg recipe list`), or a YAML file of your own, called what its `name:` says."
"""What a recipe is, for help texts."""

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The cohort in nnU-Net's layout, or the folder of the scans that the recipe lists; default data/DATASET.",
    ),
]
Fold = Annotated[int, typer.Option("--fold", min=0, help="Which fold of the recipe's split.")]
Requeue = Annotated[
    bool, typer.Option("--requeue", help="Go on where the folder has a checkpoint, else begin: one command for a queue.")
]
Attention = Annotated[
    bool, typer.Option("--attention", help="At each validation, a picture of every attention gate on one case.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that draw samples while the device computes; default: by the cores."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="DIR", help="Keep prepared scans here, so that resumed and other runs need not read them again."
    ),
]
CacheLimit = Annotated[
    float, typer.Option("--cache-limit", metavar="GB", min=0.001, help="What they may take; the least recently used go.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe, e.g. loop.learning_rate=3e-4; repeatable."),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Replaces the recipe's number of optimiser steps.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Replaces the recipe's seed.")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Replaces the recipe's batch size.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where `agseg train` leaves its runs.")]


def case_cache(folder: Path | None, limit_gb: float) -> CaseCache | None:
    """The cache that ``--cache`` and ``--cache-limit`` ask for."""
    from agseg.training.case_cache import CaseCache

    if math.isnan(limit_gb):
        raise UsageError("not a limit", value="--cache-limit nan", expected="GB, such as 100")
    return None if folder is None else CaseCache(folder, limit_gb * 1e9)


def drawing_workers(given: int | None, *, device: str, quiet: bool) -> int:
    """What ``--workers`` says, or what the cores have room for; the number is told."""
    from torch import cuda

    from agseg.io.dicom.parallel import usable_cores
    from agseg.training.batches import workers_for

    cores, on_gpu = usable_cores(), device != "cpu" and cuda.is_available()
    number = workers_for(cores=cores, processes=options.launched_processes(), on_gpu=on_gpu) if given is None else given
    if not quiet and options.is_first_process():
        drawing = {0: "samples are drawn between steps", 1: "1 process draws samples"}.get(
            number, f"{number} processes draw samples"
        )
        console.note(f"{drawing} ({'of' if given is None else '--workers;'} {cores} cores); reading the cases")
    return number


@contextmanager
def run_progress(description: str, *, quiet: bool) -> Iterator[ProgressCall]:
    """A bar with the time left and the loss; in a log, a line now and then."""
    if not quiet and not console.is_terminal() and options.is_first_process():
        yield _Lines(description).tell
        return
    with console.progress(description, quiet=quiet) as advance:

        def show(news: Progress) -> None:
            score = "" if news.score is None else f", score {news.score:.3f}"
            waits = f", waits {news.speed.wait_share:.0%} for samples" if news.speed.wait_share > STARVED else ""
            advance(news.step, news.steps, f"{description}: loss {news.loss:.3f}{score}{waits}")

        yield show


class _Lines:
    """Progress as lines of a log: at once, after every validation, and once in a while."""

    def __init__(self, description: str) -> None:
        self.description = description
        self._told = float("-inf")

    def tell(self, news: Progress) -> None:
        now = time.monotonic()
        if news.score is None and now - self._told < LINE_EVERY_S:
            return
        self._told = now
        score = "" if news.score is None else f", score {news.score:.3f}"
        left = (news.steps - news.step) * news.seconds_per_step
        waits = news.speed.wait_share
        pace = f"{news.seconds_per_step:.2f} s a step, {news.speed.samples_per_second:.3g} samples a second"
        pace += f", {waits:.0%} of it waiting for samples" if waits > STARVED else ""
        pace += f", {left / 60:.0f} min left"
        console.note(f"{self.description}: step {news.step} of {news.steps}, loss {news.loss:.3f}{score}; {pace}")


def say(report: TrainingReport, *, json: bool, quiet: bool) -> None:
    """How a run ended; the first process says it for all."""
    if not options.is_first_process():
        quiet, json = True, False
    if json:
        console.document(report.to_dict())
    elif not quiet:
        best = "" if report.best_score is None else f", best validation score {report.best_score:.3f}"
        loss = "no finite loss" if report.loss is None else f"loss {report.loss:.3f}"
        news = "nothing left to do" if report.began_at == report.step else loss
        console.note(f"step {report.step} of {report.steps}, {news}{best}; {report.output}")
    if report.interrupted:
        if not (json or quiet):
            console.note(
                "A signal ended the run; it left a checkpoint. Go on with --resume, or queue the command with --requeue."
            )
        raise typer.Exit(ExitCode.TERMINATED)
