"""``agseg evaluate``: scores with their uncertainty, in the papers' shape."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.training_options import Data
from agseg.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("evaluate")
    def evaluate(
        truth: Annotated[
            Path | None,
            typer.Argument(metavar="GROUND_TRUTH", help="Folder of reference masks, or a table of planes (frame, label)."),
        ] = None,
        prediction: Annotated[
            Path | None, typer.Argument(metavar="PREDICTION", help="Masks of the same names, or frames.csv.")
        ] = None,
        protocol: Annotated[
            str | None,
            typer.Option("--protocol", metavar="bft|aft|scr", help="Predict and score a test split under a protocol."),
        ] = None,
        run: Annotated[Path | None, typer.Option("--run", metavar="RUN", help="The network: a run's folder.")] = None,
        data: Data = None,
        split: Annotated[
            str | None, typer.Option("--split", help="Named split; default: the run's, or the cohort's first.")
        ] = None,
        fold: Annotated[
            int | None, typer.Option("--fold", min=0, help="Which fold of the split; default: the run's own, or the first.")
        ] = None,
        against: Annotated[
            list[Path] | None, typer.Option("--against", metavar="DIR", help="Earlier evaluations to compare with.")
        ] = None,
        pool: Annotated[
            list[Path] | None, typer.Option("--pool", metavar="DIR", help="Evaluations of folds to put together (repeatable).")
        ] = None,
        last: Annotated[bool, typer.Option("--last", help="The last checkpoint instead of the best.")] = False,
        masks: Annotated[bool, typer.Option("--masks", help="Write the predicted masks too.")] = False,
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where reports go.")] = Path("evaluation"),
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Per-case CSV, nnU-Net's summary.json, and a table (Markdown, CSV, LaTeX) with tests and intervals."""
        from agseg.workflows import evaluate as workflow
        from agseg.workflows.evaluate_frames import FrameReport
        from agseg.workflows.evaluate_planes import PlanesReport, evaluate_planes
        from agseg.workflows.pool_folds import pool_folds

        console.setup_logging(quiet=quiet, debug=debug)
        report: workflow.EvaluationReport | FrameReport | PlanesReport
        if pool and truth is None and run is None:
            report = pool_folds(pool, output=output, against=against or ())
        elif truth is not None and prediction is not None and run is None and truth.is_file():
            report = evaluate_planes(truth, prediction, output=output, against=against or ())
        elif truth is not None and prediction is not None and run is None:
            report = workflow.evaluate_folders(truth, prediction, output=output, against=against or ())
        elif run is not None and truth is None:
            request = workflow.RunRequest(run, protocol=protocol, data=data, split=split, fold=fold, last=last)
            with console.progress("evaluating", quiet=quiet or json) as advance:
                report = workflow.evaluate_run(request, output=output, against=against or (), masks=masks, progress=advance)
        else:
            raise UsageError(
                "nothing to evaluate",
                expected="GROUND_TRUTH_DIR PREDICTION_DIR, --run RUN with --protocol bft, aft or scr, or --pool DIR ...",
                hint="For example: agseg evaluate --protocol bft --run runs/attention-unet3d-ct150-120-30 --data data/ct82",
            )
        if json:
            console.document(report.to_dict())
        elif not quiet:
            console.stdout().print((output / "table.md").read_text(encoding="utf-8"), markup=False)
