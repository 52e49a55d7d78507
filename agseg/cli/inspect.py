"""``agseg inspect``: what segment would do with these inputs, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console
from agseg.cli.options import Debug, Json, Quiet, Verbose
from agseg.errors import UsageError

if TYPE_CHECKING:
    from agseg.workflows.inspect import InspectedStudy, Inspection

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("inspect")(inspect)


def inspect(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders (walked recursively) and files.")],
    at_lps: Annotated[
        list[str] | None,
        typer.Option("--at-lps", metavar="X,Y,Z", help="Sample every study at this point (DICOM's LPS, mm); repeatable."),
    ] = None,
    include: Annotated[list[str] | None, typer.Option("--include", metavar="GLOB", help="Only these paths below PATH.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Not these paths below PATH.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Say what segment would do: each study and series, chosen or not, with its reason. Nothing is written."""
    from agseg.workflows.inspect import inspect as run

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    points = [_point(text) for text in at_lps or ()]
    with console.progress("reading", quiet=quiet or as_json) as advance:
        found = run(paths, at_lps_mm=points, include=include or (), exclude=exclude or (), on_progress=advance)
    if as_json:
        console.document(found.to_dict())
    elif not quiet:
        _print(found, verbose=verbose)
    raise typer.Exit(found.exit_code)


def _point(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("--at-lps takes three numbers", value=text, expected="X,Y,Z in mm") from None
    return x, y, z


def _print(found: Inspection, *, verbose: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Studies", title_justify="left", box=None, pad_edge=False)
    for column in ("study", "status", "modality", "voxels", "spacing (mm)", "axes", "why"):
        table.add_column(column, overflow="fold")
    for study in found.studies:
        table.add_row(*(escape(cell) for cell in _cells(study)), style="" if study.is_ok else "red")
    console.print_table(table)
    if found.skipped:
        left_out = Table(title="Files in no study", title_justify="left", box=None, pad_edge=False)
        for column in ("files", "reason") if not verbose else ("file", "reason", "detail"):
            left_out.add_column(column, overflow="fold")
        if verbose:
            for below, skip in found.skipped:
                left_out.add_row(escape(below), str(skip.reason), escape(skip.detail))
        else:
            counts: dict[str, int] = {}
            for _, skip in found.skipped:
                counts[str(skip.reason)] = counts.get(str(skip.reason), 0) + 1
            for reason, count in sorted(counts.items()):
                left_out.add_row(str(count), reason)
        console.print_table(left_out)


def _cells(study: InspectedStudy) -> tuple[str, ...]:
    grid = study.grid
    why = study.study.reason if study.rejected is None else f"{study.rejected.code}: {study.rejected.message}"
    notes = [f"{warned.code}: {warned.message}" for warned in study.warnings]
    samples = [
        f"{','.join(f'{x:g}' for x in sample.lps_mm)}: {'outside' if sample.value is None else f'{sample.value:.1f}'}"
        for sample in study.samples
    ]
    return (
        study.study.id,
        "ok" if study.is_ok else "rejected",
        study.study.modality or "?",
        "" if grid is None else "x".join(str(n) for n in grid.shape),
        "" if grid is None else "x".join(f"{s:.3g}" for s in grid.spacing_mm),
        "" if grid is None else grid.axis_codes,
        "\n".join([why, *notes, *samples]),
    )
