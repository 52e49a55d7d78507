"""``agseg finetune``: bring a trained network to another data set."""

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
    Runs,
    Seed,
    Settings,
    Steps,
    Workers,
    case_cache,
    drawing_workers,
    run_progress,
    say,
)
from agseg.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("finetune")
    def finetune(
        source: Annotated[
            str, typer.Option("--from", metavar="SOURCE", help="A data set (its run in --runs), a run folder, or a weights id.")
        ],
        target: Annotated[
            str | None,
            typer.Option("--to", metavar="DATASET", help="A paper's data set; without it, the labels of --data."),
        ] = None,
        data: Data = None,
        arch: Annotated[str, typer.Option("--arch", help="Which of the source data set's networks.")] = "attention-unet3d",
        recipe: Annotated[
            str | None, typer.Option("--recipe", help=f"A fine-tuning recipe; default: the network's own. {RECIPE}")
        ] = None,
        organ: Annotated[
            list[str] | None, typer.Option("--organ", metavar="NAME", help="Which labels of --data; default all; repeatable.")
        ] = None,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="DIR", help="The run's folder; default runs/RECIPE.")
        ] = None,
        runs: Runs = Path("runs"),
        fold: Fold = 0,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
        requeue: Requeue = False,
        attention: Attention = False,
        steps: Steps = None,
        seed: Seed = None,
        batch: Batch = None,
        settings: Settings = None,
        device: options.Device = "auto",
        workers: Workers = None,
        cache: Cache = None,
        cache_limit: CacheLimit = CACHE_GB,
        manifest: options.Manifest = None,
        offline: options.Offline = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        verbose: options.Verbose = False,
        debug: options.Debug = False,
    ) -> None:
        """Fine-tune a network: to a paper's data set (AFT), or with a head of its own to data of yours.

        AFT: only background and the target's organs count, the other logits are dropped before the softmax. To your own data:
        the trunk is the source's, and so is what its head knows of labels of the same name; other labels begin anew.
        """
        from agseg.training.checkpoint import LAST
        from agseg.training.overrides import overridden
        from agseg.training.recipe import find_recipe
        from agseg.workflows import finetune as workflow
        from agseg.workflows.finetune_own import adapted_recipe
        from agseg.workflows.train import RunPlace, run_name

        console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
        check_device(device)
        start = workflow.source_network(
            source, architecture=arch, runs=runs, manifest=manifest, home=options.home(), offline=offline
        )
        if recipe is not None:
            chosen = find_recipe(recipe)
        elif target is not None:
            chosen = workflow.finetune_recipe(target, start)
        elif data is not None:
            chosen = adapted_recipe(start, data, organs=organ or ())
        else:
            raise UsageError("nothing to fine-tune to", expected="--to DATASET, or --data DIR with your own data set")
        chosen = overridden(chosen, settings or (), steps=steps, seed=seed, batch=batch)
        folder = output or runs / run_name(chosen, fold)
        place = RunPlace(
            data=data or Path("data") / (target or chosen.dataset),
            output=folder,
            fold=fold,
            device=device,
            processes=options.launched_processes(),
            workers=drawing_workers(workers, device=device, quiet=quiet or json),
            cache=case_cache(cache, cache_limit),
            attention=attention,
            resume=resume or (requeue and (folder / LAST).exists()),
        )
        with run_progress(chosen.name, quiet=quiet or json) as progress:
            report = workflow.finetune(start, chosen, place, progress=progress)
        say(report, json=json, quiet=quiet)
