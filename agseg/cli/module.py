"""``agseg module``: one job of a router or platform, with its settings from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agseg.cli import console, options
from agseg.cli.site_segment import request_from

if TYPE_CHECKING:
    from agseg.workflows.segment import SegmentRequest

FOLDERS = (("MERCURE_IN_DIR", "MERCURE_OUT_DIR"), ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
           ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH"))  # fmt: skip
"""Where platforms say which folders are meant: mercure, MONAI Deploy (Holoscan packages, and the packages before)."""

SETTING = "AGSEG_SEGMENT_"
"""``AGSEG_SEGMENT_OUTPUT_TYPE=dicom-seg,dicom-sr`` is ``--output-type dicom-seg --output-type dicom-sr``."""

LISTS = frozenset({"organ", "weights", "output-type", "include", "exclude"})
SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("module")(module)


def module(
    context: typer.Context,
    source: Annotated[Path | None, typer.Argument(metavar="[IN]", help="Images; else the platform's variable says.")] = None,
    output: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="Results and result.json; else the same.")] = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """One job of a router or platform: a folder in, a folder out, options of segment as AGSEG_SEGMENT_<OPTION>, result.json."""
    from agseg.errors import AgsegError
    from agseg.workflows.module import task_settings, write_failure, write_result
    from agseg.workflows.segment import segment

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    found, target = _folders(source, output)
    is_mercures = "MERCURE_IN_DIR" in os.environ and found == Path(os.environ["MERCURE_IN_DIR"])
    try:
        settings = {**_environment(), **(_listed(task_settings(found)) if is_mercures else {})}
        request: SegmentRequest = request_from(context, settings, inputs=(found,), output=target, debug=debug)
        console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
        report = segment(request)
    except AgsegError as error:
        write_failure(error, target)
        raise
    write_result(report, target, flat="MERCURE_OUT_DIR" in os.environ)
    if not quiet:
        for study in report.studies:
            said = f": {study.code} {study.message}" if study.code else ""
            console.note(f"{study.status.value} {study.input}{said}")
    if report.exit_code:
        raise typer.Exit(int(report.exit_code))


def _folders(source: Path | None, output: Path | None) -> tuple[Path, Path]:
    from agseg.errors import UsageError

    for named_in, named_out in FOLDERS:
        if source is None and named_in in os.environ:
            source, output = Path(os.environ[named_in]), output or Path(os.environ.get(named_out, ""))
    if source is None or output is None or not str(output) or output == Path():
        raise UsageError("nothing says which folders are meant", expected="agseg module IN OUT",
                         hint=f"Or {', '.join(f'{a} and {b}' for a, b in FOLDERS)}.")  # fmt: skip
    return source, output


def _environment() -> dict[str, Any]:
    """What the variables say, by option."""
    given = {name.removeprefix(SETTING): value for name, value in os.environ.items() if name.startswith(SETTING) and value}
    return _listed({name.lower(): value for name, value in given.items()})


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    """Values as the options take them: lists by commas, switches as words."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.lower().replace("_", "-")
        if isinstance(value, str) and name in LISTS:
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, str) and value.lower() in SWITCHES and name not in LISTS and not value.isdigit():
            value = SWITCHES[value.lower()]
        found[name] = value
    return found
