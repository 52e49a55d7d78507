"""``agseg protocols``: what ``make protocols`` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the command; it is for developers and stands in no list."""

    @app.command("protocols", hidden=True)
    def protocols(
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the reports go.")] = Path(
            "build/protocols"
        ),
        processes: Annotated[
            int, typer.Option("--processes", min=1, help="Networks trained at a time, on one thread each.")
        ] = 2,
        debug: options.Debug = False,
    ) -> None:
        """BFT, AFT and SCR for both networks on phantoms; writes protocols.json, .md and .png."""
        from agseg.workflows.protocols import ProtocolsPlan, run_protocols

        console.setup_logging(debug=debug)
        run_protocols(output, ProtocolsPlan(processes=processes), say=console.note)
