"""``agseg train``: one recipe on one cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.device import check_device
from agseg.cli.training_options import (
    CACHE_GB,
    RECIPE,
    Attention,
    Batch,
    Cache,
    CacheLimit,
    Data,
    Fold,
    Requeue,
    Seed,
    Settings,
    Steps,
    Workers,
    case_cache,
    drawing_workers,
    run_progress,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("train")
    def train(
        recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE)],
        data: Data = None,
        output: Annotated[
            Path | None,
            typer.Option(
                "--output", "-o", metavar="DIR", help="The run's folder; default runs/RECIPE, with -fold-K behind it for folds."
            ),
        ] = None,
        fold: Fold = 0,
        source: Annotated[
            str | None,
            typer.Option("--from", metavar="SOURCE", help="A run's folder, or a weights id, to begin with."),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
        requeue: Requeue = False,
        only: Annotated[
            list[str] | None,
            typer.Option("--only", metavar="CASE", help="Train on these cases of the training side alone; repeatable."),
        ] = None,
        attention: Attention = False,
        steps: Steps = None,
        seed: Seed = None,
        batch: Batch = None,
        settings: Settings = None,
        device: options.Device = "auto",
        workers: Workers = None,
        cache: Cache = None,
        cache_limit: CacheLimit = CACHE_GB,
        json: options.Json = False,
        quiet: options.Quiet = False,
        verbose: options.Verbose = False,
        debug: options.Debug = False,
    ) -> None:
        """Train a recipe. Validation goes through the product's prediction path; test cases are never opened."""
        from agseg.training.checkpoint import LAST
        from agseg.training.overrides import overridden
        from agseg.training.recipe import find_recipe
        from agseg.workflows.finetune import starting_network
        from agseg.workflows.train import RunPlace, run_name, run_training

        console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
        check_device(device)
        chosen = overridden(find_recipe(recipe), settings or (), steps=steps, seed=seed, batch=batch)
        folder = output or Path("runs") / run_name(chosen, fold)
        place = RunPlace(
            data=data or Path("data") / chosen.dataset,
            output=folder,
            fold=fold,
            device=device,
            processes=options.launched_processes(),
            workers=drawing_workers(workers, device=device, quiet=quiet or json),
            cache=case_cache(cache, cache_limit),
            resume=resume or (requeue and (folder / LAST).exists()),
            attention=attention,
            only=tuple(only or ()),
        )
        start = None if source is None else starting_network(source, home=options.home())
        with run_progress(chosen.name, quiet=quiet or json) as progress:
            report = run_training(chosen, place, source=start, progress=progress)
        say(report, json=json, quiet=quiet)
