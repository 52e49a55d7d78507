"""``agseg plan``: a recipe for a data set of one's own, with its reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("plan")
    def plan(
        data: Annotated[Path, typer.Argument(metavar="DIR", help="The data set: described, checked and cut into folds.")],
        name: Annotated[str | None, typer.Option("--name", help="Of the recipe; default: the data set's.")] = None,
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where NAME.yaml goes.")] = Path(),
        arch: Annotated[
            str | None,
            typer.Option("--arch", metavar="attention-unet|unet|nnunet-plain", help="The network; default: by the spacing."),
        ] = None,
        flat: Annotated[bool, typer.Option("--2d", help="Single slices instead of patches.")] = False,
        memory: Annotated[float, typer.Option("--memory", metavar="GB", min=0.01, help="What a training step may take.")] = 8.0,
        steps: Annotated[
            int | None, typer.Option("--steps", min=1, help="Optimiser steps; default: by the number of cases.")
        ] = None,
        seed: Annotated[int, typer.Option("--seed", help="Of every random number.")] = 0,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Propose a recipe from the data: spacing, patch, widths, intensities. The file says why."""
        from agseg.training.recipe import plain
        from agseg.workflows.plan import PlanRequest, plan_recipe

        console.setup_logging(quiet=quiet, debug=debug)
        request = PlanRequest(name, arch, flat, memory, steps, seed)
        with console.progress("reading", quiet=quiet or json) as advance:
            proposal = plan_recipe(data, request, output=output, progress=advance)
        path = output / f"{proposal.recipe.name}.yaml"
        if json:
            spec = proposal.recipe.input
            facts = {"spacing_mm": spec.spacing_mm, "tile": spec.tile, "steps": proposal.recipe.loop.steps}
            console.document({"recipe": str(path), "reasons": proposal.reasons, **plain(facts)})
        elif not quiet:
            for key, reason in proposal.reasons.items():
                console.note(f"{key}: {reason}")
            console.note(f"{path}; train it: agseg train {path} --data {data} --fold 0")
