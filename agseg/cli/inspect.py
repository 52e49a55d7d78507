"""``agseg inspect``: what segment would do with these inputs, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.options import Debug, Json, Quiet, Verbose
from agseg.errors import UsageError

if TYPE_CHECKING:
    from agseg.workflows.inspect import InspectedStudy, Inspection

HERE = "."
"""Stands in place of a file for an INPUT without any study."""


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
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest
    from agseg.workflows.inspect import inspect as run
    from agseg.workflows.inspect import installed_weights

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    points = [_point(text) for text in at_lps or ()]
    home = options.home()
    able = installed_weights(Manifest.load(home=home), WeightsCache(home, offline=True))
    with console.progress("reading", quiet=quiet or as_json) as advance:
        found = run(paths, at_lps_mm=points, include=include or (), exclude=exclude or (), able=able, on_progress=advance)
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
    columns = ("study", "status", "modality", "grid", "why")
    if found.studies:
        styles = ["" if study.is_ok else "red" for study in found.studies]
        console.print_rows("Studies", columns, [_cells(study) for study in found.studies], styles=styles, whole_names=False)
    files = [(below, skip) for below, skip in found.skipped if below != HERE]
    if files and verbose:
        rows = [(below, str(skip.reason), skip.detail) for below, skip in files]
        console.print_rows("Files in no study", ("file", "reason", "detail"), rows)
    elif files:
        counts = Counter(str(skip.reason) for _, skip in files)
        counted = [(str(count), reason) for reason, count in sorted(counts.items())]
        console.print_rows("Files in no study", ("files", "reason"), counted)
    for below, skip in found.skipped:
        if below == HERE:
            console.print_line(f"{skip.path}: {skip.reason}: {skip.detail}")


def _cells(study: InspectedStudy) -> tuple[str, ...]:
    return (
        study.study.id,
        "ok" if study.is_ok else "rejected",
        study.study.modality or "?",
        "\n".join(_grid(study)),
        "\n".join((*_why(study), *_samples(study))),
    )


def _grid(study: InspectedStudy) -> Iterator[str]:
    """Voxels, their spacing and the directions of the axes, a line each: 80 columns have no room for them side by side."""
    if study.grid is not None:
        yield "x".join(str(n) for n in study.grid.shape)
        yield "x".join(f"{s:.3g}" for s in study.grid.spacing_mm) + " mm"
        yield study.grid.axis_codes


def _why(study: InspectedStudy) -> Iterator[str]:
    """The reason without what a warning says too, the warnings, and which weights could do the study."""
    if study.rejected is not None:
        yield f"{study.rejected.code}: {study.rejected.message}"
    else:
        told = " ".join(warned.message for warned in study.warnings)
        yield "; ".join(part for part in study.study.reason.split("; ") if part not in told)
    yield from (f"{warned.code}: {warned.message}" for warned in study.warnings)
    if study.weights:
        yield f"weights here: {', '.join(study.weights)}"


def _samples(study: InspectedStudy) -> Iterator[str]:
    for sample in study.samples:
        value = "outside" if sample.value is None else f"{sample.value:.1f}"
        yield f"{','.join(f'{x:g}' for x in sample.lps_mm)}: {value}"
