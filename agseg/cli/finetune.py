"""``agseg finetune``: bring a trained network to another data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.device import check_device
from agseg.cli.training_options import RECIPE, Data, Fold, Runs, Workers, run_progress, say


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("finetune")
    def finetune(
        source: Annotated[
            str, typer.Option("--from", metavar="SOURCE", help="A data set (its run in --runs), a run folder, or a weights id.")
        ],
        target: Annotated[str, typer.Option("--to", metavar="DATASET", help="The data set to bring it to.")],
        data: Data = None,
        arch: Annotated[str, typer.Option("--arch", help="Which of the source data set's networks.")] = "attention-unet3d",
        recipe: Annotated[
            str | None, typer.Option("--recipe", help=f"A fine-tuning recipe; default: the network's own. {RECIPE}")
        ] = None,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="DIR", help="The run's folder; default runs/RECIPE.")
        ] = None,
        runs: Runs = Path("runs"),
        fold: Fold = 0,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
        device: options.Device = "auto",
        workers: Workers = 0,
        manifest: options.Manifest = None,
        offline: options.Offline = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        verbose: options.Verbose = False,
        debug: options.Debug = False,
    ) -> None:
        """Fine-tune (AFT): only background and the target's organs count, the other logits are dropped before the softmax."""
        from agseg.training.recipe import find_recipe
        from agseg.workflows import finetune as workflow
        from agseg.workflows.train import RunPlace

        console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
        check_device(device)
        start = workflow.source_network(
            source, architecture=arch, runs=runs, manifest=manifest, home=options.home(), offline=offline
        )
        chosen = find_recipe(recipe) if recipe else workflow.finetune_recipe(target, start)
        place = RunPlace(
            data=data or Path("data") / target,
            output=output or runs / chosen.name,
            fold=fold,
            device=device,
            processes=options.launched_processes(),
            workers=workers,
            resume=resume,
        )
        with run_progress(chosen.name, quiet=quiet or json) as progress:
            report = workflow.finetune(start, chosen, place, progress=progress)
        say(report, json=json, quiet=quiet)
