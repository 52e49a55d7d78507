"""``agseg export``: a trained run as weights with a model card and a manifest entry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("export")
    def export(
        runs: Annotated[
            list[Path], typer.Argument(metavar="RUN...", help="A run's folder; several folds of one recipe make an ensemble.")
        ],
        weights_id: Annotated[str, typer.Option("--as", metavar="ID", help="Name of the new weights entry.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the three files go.")] = Path(
            "weights"
        ),
        evaluation: Annotated[
            Path | None, typer.Option("--evaluation", metavar="DIR", help="An `agseg evaluate` folder, for the scores.")
        ] = None,
        last: Annotated[bool, typer.Option("--last", help="The last checkpoint instead of the best.")] = False,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export of this name.")] = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Write safetensors, a model card and a ready manifest entry for `segment` or `classify-us` to take."""
        from agseg.training.evaluation import read_evaluation
        from agseg.training.trained_model import open_run
        from agseg.workflows.export import export_run

        console.setup_logging(quiet=quiet, debug=debug)
        scores = None if evaluation is None else read_evaluation(evaluation)
        trained = [open_run(run, best=not last) for run in runs]
        report = export_run(trained, weights_id=weights_id, output=output, evaluation=scores, overwrite=overwrite)
        if json:
            console.document(report.to_dict())
        elif not quiet:
            console.note(", ".join(map(str, (*(report.files or (report.weights,)), report.card, report.manifest))))
            console.note(f"Use it: {report.command}")
