"""``agseg classify-us``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.device import check_device
from agseg.cli.run_end import mute_ending, show_event

if TYPE_CHECKING:
    from rich.table import Table

    from agseg.report import BatchReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("classify-us")(classify_us)


def classify_us(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Videos (mp4, mov, avi, mkv), ultrasound DICOM, images, or folders of them."),
    ] = None,
    more_inputs: Annotated[list[Path] | None, typer.Option("--input", "-i", help="The same as INPUT.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where results go.")] = Path("agseg-out"),
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="ID|RUN", help="An entry of the weights manifest, or the folder of a training run."),
    ] = None,
    manifest: options.Manifest = None,
    every: Annotated[int, typer.Option("--every", metavar="N", min=1, help="Analyse every N-th frame.")] = 1,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="X0,Y0,X1,Y1", help="The ultrasound image in source pixels; default: found.")
    ] = None,
    annotate: Annotated[bool, typer.Option("--annotate", help="Write a video with label, probability, box and map.")] = False,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(metavar="auto|fp32|bf16|fp16", help="Number format of the network.")] = "auto",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    deadline: options.Deadline = None,
    min_age: options.MinAge = 0.0,
    study_timeout: options.StudyTimeout = None,
    num_parts: options.NumParts = 1,
    part_id: options.PartId = 0,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Find fetal standard planes in ultrasound clips: a timeline, the best frame of each plane, where the network looked."""
    from agseg.batch import Limits, Part
    from agseg.errors import UsageError
    from agseg.workflows import classify_us as workflow

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    paths = (*(inputs or ()), *(more_inputs or ()))
    if not paths:
        raise UsageError("no input given", hint="agseg classify-us video.mp4")
    options.check_times(deadline=deadline, study_timeout=study_timeout, min_age=min_age)
    check_device(device)
    request = workflow.ClassifyRequest(
        inputs=paths,
        output=output,
        home=options.home(),
        weights=weights,
        manifest=manifest,
        offline=offline,
        device=device,
        precision=precision,
        step=every,
        crop=None if crop is None else _box(crop),
        annotated=annotate,
        limits=Limits(
            study_timeout_s=workflow.DEFAULT_CLIP_TIMEOUT_S if study_timeout is None else study_timeout,
            deadline_s=None if deadline is None else deadline * 60.0,
            min_age_s=min_age,
        ),
        part=Part(part_id, num_parts),
        overwrite=overwrite,
        dry_run=dry_run,
        debug=debug,
    )
    with console.progress("classifying", quiet=quiet or as_json) as advance:
        report = workflow.classify_us(request, on_event=lambda event: show_event(advance, event))
    if as_json:
        console.document(report.to_dict())
    elif (((console.is_terminal() or dry_run) and not quiet) or verbose) and report.studies:
        console.print_table(planes_table(report))
        where = f"nothing was written; results would be in {output}" if dry_run else f"results in {output}"
        console.note(f"{where}; not for clinical decisions without review")
    if not quiet and not as_json:
        for study in report.studies:
            if study.status.value in ("rejected", "failed"):
                console.note(f"{study.status.value} {study.input}: {study.code} {study.message}")
        expected, record = "videos, ultrasound DICOM or images", None if dry_run else output / "run.json"
        for line in mute_ending(report, what="clip", inputs=paths, expected=expected, record=record):
            console.note(line)
    if report.exit_code:
        raise typer.Exit(int(report.exit_code))


def _box(text: str) -> tuple[int, int, int, int]:
    from agseg.errors import UsageError

    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError("--crop wants four whole numbers", value=text, expected="x0,y0,x1,y1") from None
    return x0, y0, x1, y1


def planes_table(report: BatchReport) -> Table:
    """One row per clip."""
    from rich.table import Table

    table = Table(title="Standard planes")
    for heading in ("clip", "status", "frames", "plane / background / unsure", "planes found"):
        table.add_column(heading, overflow="fold")
    for study in report.studies:
        states = study.extra.get("states", {})
        table.add_row(
            study.input,
            study.status.value,
            str(study.extra.get("frames", "")),
            " / ".join(str(states.get(state, "")) for state in ("plane", "background", "unsure")) if states else "",
            ", ".join(study.extra.get("planes", ())),
        )
    return table
