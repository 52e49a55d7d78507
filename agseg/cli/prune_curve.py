"""``agseg prune-curve``: what each depth of a prunable network costs and reaches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.device import check_device
from agseg.cli.training_options import Fold

if TYPE_CHECKING:
    from agseg.workflows.prune_curve import PruneCurve


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("prune-curve")
    def prune_curve(
        data: Annotated[Path, typer.Option("--data", metavar="DIR", help="A labelled set in nnU-Net's layout.")],
        weights: Annotated[
            str | None,
            typer.Option("--weights", metavar="ID|RUN", help="An entry of the manifest, or a training run's folder."),
        ] = None,
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the curve goes.")] = Path(
            "prune-curve"
        ),
        manifest: options.Manifest = None,
        split: Annotated[
            str | None, typer.Option("--split", help="Only the test side of this split; default: every case.")
        ] = None,
        fold: Fold = 0,
        cases: Annotated[int | None, typer.Option("--cases", min=1, metavar="N", help="At most N cases.")] = None,
        repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Time each case N times.")] = 1,
        device: options.Device = "auto",
        offline: options.Offline = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Dice, seconds, parameters and memory of a prunable network at each depth: curve.csv, curve.json, curve.png."""
        from agseg.workflows import prune_curve as workflow

        console.setup_logging(quiet=quiet, debug=debug)
        check_device(device)
        request = workflow.CurveRequest(
            data=data,
            output=output,
            home=options.home(),
            weights=weights,
            manifest=manifest,
            split=split,
            fold=fold,
            cases=cases,
            repeats=repeats,
            device=device,
            offline=offline,
        )
        with console.progress("prune-curve", quiet=quiet or json) as advance:
            curve = workflow.prune_curve(request, progress=advance)
        if json:
            console.document(curve.to_dict())
        elif not quiet:
            _print(curve)
            console.note(f"curve.csv, curve.json and curve.png are in {output}")


def _print(curve: PruneCurve) -> None:
    from rich.table import Table

    table = Table(title=f"{curve.weights}, {len(curve.cases)} cases of {curve.data}, {curve.device}, {curve.precision}")
    for name in ("depth", "Dice", "seconds", "parameters", "read KiB", "peak MiB"):
        table.add_column(name, justify="right")
    for p in curve.points:
        peak = "" if p.peak_bytes is None else f"{p.peak_bytes / 2**20:.1f}"
        row = (f"{p.mean_dice:.4f}", f"{p.seconds:.3f}", f"{p.parameters:,}", f"{p.read_bytes / 1024:,.0f}", peak)
        table.add_row(f"L{p.depth}", *row)
    console.print_table(table)
    for step in curve.steps:
        tested = f"p {step.p:.2g}, Holm {step.p_holm:.2g}, {step.n} cases"
        console.note(f"L{step.shallower} to L{step.deeper}: {step.gain:+.4f} Dice ({tested})")
    for published in curve.published:
        shown = "; ".join(
            f"{name} {figure.mean:g}" for figures in published.scores.values() for name, figure in figures.items()
        )
        console.note(
            f"published, {published.method}, {published.source}: {shown}{f'. {published.flag}' if published.flag else ''}"
        )
