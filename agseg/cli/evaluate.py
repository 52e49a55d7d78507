"""``agseg evaluate``: scores with their uncertainty, in the papers' shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agseg.cli import console, options
from agseg.cli.training_options import Data
from agseg.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from agseg.training.trained_model import Computing


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("evaluate")
    def evaluate(
        context: typer.Context,
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
        run: Annotated[
            Path | None, typer.Option("--run", metavar="RUN", help="The network: a run's folder, or the id of weights.")
        ] = None,
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
        name: Annotated[str | None, typer.Option("--name", help="What the row is called in tables and on the page.")] = None,
        only: Annotated[
            list[str] | None, typer.Option("--case", metavar="ID", help="Score only this reference mask; repeatable.")
        ] = None,
        tolerance: Annotated[float, typer.Option("--tolerance", metavar="MM", min=0, help="Of the surface Dice (NSD).")] = 2.0,
        mirror: Annotated[
            bool, typer.Option("--mirror", help="Average over the mirrored scan, as `segment --mirror`.")
        ] = False,
        largest: Annotated[
            list[str] | None, typer.Option("--largest", metavar="ORGAN", help="Keep only its largest component; repeatable.")
        ] = None,
        device: options.Device = "auto",
        precision: Annotated[
            str, typer.Option("--precision", metavar="auto|fp32|bf16|fp16", help="As `segment` takes it by default.")
        ] = "auto",
        last: Annotated[bool, typer.Option("--last", help="The last checkpoint instead of the best.")] = False,
        masks: Annotated[bool, typer.Option("--masks", help="Write the predicted masks too.")] = False,
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where reports go.")] = Path("evaluation"),
        manifest: options.Manifest = None,
        offline: options.Offline = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Per-case CSV, nnU-Net's summary.json, a table with tests and intervals, and report.html, worst cases first.

        Exits 3 if a reference has no prediction that can be scored: the table names it.
        """
        from agseg.weights.manifest import Manifest
        from agseg.workflows import evaluate as workflow
        from agseg.workflows.evaluate_folders import evaluate_folders
        from agseg.workflows.evaluate_frames import FrameReport
        from agseg.workflows.evaluate_planes import PlanesReport, evaluate_planes
        from agseg.workflows.evaluation_report import EvaluationReport
        from agseg.workflows.finetune import entry_network
        from agseg.workflows.pool_folds import pool_folds

        console.setup_logging(quiet=quiet, debug=debug)
        _refuse_unused(_given(context), truth)
        report: EvaluationReport | FrameReport | PlanesReport
        if pool and truth is None and run is None:
            report = pool_folds(pool, output=output, against=against or (), name=name)
        elif truth is not None and prediction is not None and run is None and truth.is_file():
            report = evaluate_planes(truth, prediction, output=output, against=against or (), name=name)
        elif truth is not None and prediction is not None and run is None:
            with console.progress("scoring", quiet=quiet or json) as advance:
                report = evaluate_folders(
                    truth,
                    prediction,
                    output=output,
                    against=against or (),
                    only=only or (),
                    name=name,
                    tolerance_mm=tolerance,
                    progress=advance,
                )
        elif run is not None and truth is None:
            computing = _computing(device, precision, mirror=mirror, largest=largest or (), tolerance_mm=tolerance)
            network = None
            if not run.exists() and str(run) in Manifest.load(manifest, home=options.home()).by_id:
                network = entry_network(str(run), manifest=manifest, home=options.home(), offline=offline)
            request = workflow.RunRequest(
                run,
                protocol=protocol,
                data=data,
                split=split,
                fold=fold,
                last=last,
                computing=computing,
                network=network,
                name=name,
            )
            with console.progress("evaluating", quiet=quiet or json) as advance:
                report = workflow.evaluate_run(request, output=output, against=against or (), masks=masks, progress=advance)
        else:
            raise UsageError(
                "nothing to evaluate",
                expected="GROUND_TRUTH_DIR PREDICTION_DIR, --run RUN, or --pool DIR for each fold's evaluation",
                hint="For example: agseg evaluate --protocol bft --run runs/attention-unet3d-ct150-120-30 --data data/ct82",
            )
        if json:
            console.document(report.to_dict())
        elif not quiet:
            console.stdout().print((output / "table.md").read_text(encoding="utf-8"), markup=False)
        if isinstance(report, EvaluationReport) and report.evaluation.not_scored:
            raise typer.Exit(ExitCode.SOME_NOT_DONE)


_OF_MASKS = frozenset({"--name", "--case", "--tolerance"})
_OF_TABLES = frozenset({"--name"})
_OF_FOLDS = frozenset({"--pool", "--name"})


_OF_ALL = frozenset({"--against", "--output", "--manifest", "--offline", "--json", "--quiet", "--debug"})


def _given(context: typer.Context) -> set[str]:
    """The options on the command line; a site's defaults hold where they are looked at."""
    told = (p for p in context.command.params if p.param_type_name == "option")
    named = {max(p.opts, key=len): context.get_parameter_source(str(p.name)) for p in told}
    return {option for option, source in named.items() if source is not None and source.name == "COMMANDLINE"} - _OF_ALL


def _refuse_unused(given: set[str], truth: Path | None) -> None:
    """An option that this kind of evaluation does not look at is a mistake, and not to be ignored."""
    if truth is None:
        kind, used = ("--pool", _OF_FOLDS) if "--pool" in given else ("--run", given - {"--case"})
    else:
        kind, used = ("two tables of planes", _OF_TABLES) if truth.is_file() else ("two folders of masks", _OF_MASKS)
    if unused := sorted(given - used):
        raise UsageError(
            f"{unused[0]} says nothing about {'the evaluation of ' if truth is None else ''}{kind}",
            value=", ".join(unused),
            expected=", ".join(sorted({"--against", *used} - {kind})),
        )


def _computing(device: str, precision: str, **how: Any) -> Computing:
    """How masks are computed, as ``segment`` would choose it."""
    from agseg.inference.device import choose_precision, resolve_device
    from agseg.models.precision import Precision
    from agseg.training.trained_model import Computing

    if precision not in [p.value for p in Precision]:
        raise UsageError("not a precision", value=precision, expected=" or ".join(p.value for p in Precision))
    where = resolve_device(device)
    return Computing(where, choose_precision(Precision(precision), where), **{**how, "largest": tuple(how["largest"])})
