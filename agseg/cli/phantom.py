"""``agseg phantom``: a labelled synthetic cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("phantom")
    def phantom(
        kind: Annotated[str, typer.Argument(metavar="ct150|ct82|us", help="Which cohort to imitate.")],
        cases: Annotated[int, typer.Option("--cases", min=3, help="Scans; for us, subjects with 14 frames each.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
        seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same voxels.")] = 0,
        coarsen: Annotated[float, typer.Option("--coarsen", min=0.5, max=5, help="Multiplies the voxel spacing of CT.")] = 1.0,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Write a labelled synthetic cohort in nnU-Net's layout, with its splits: to see that training works, no more."""
        from agseg.workflows.phantom import make_phantom

        console.setup_logging(quiet=quiet, debug=debug)
        with console.progress(f"phantom {kind}", quiet=quiet or json) as advance:
            made = make_phantom(kind, cases=cases, output=output, seed=seed, coarsen=coarsen, progress=advance)
        if json:
            console.document({"kind": kind, "output": str(output), "seed": seed, **made})
        elif not quiet:
            console.note(f"{made['cases']} cases with {made['splits']} splits in {output}")
