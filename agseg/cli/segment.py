"""``agseg segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.device import check_device
from agseg.cli.run_end import mute_ending, show_event
from agseg.cli.run_tables import print_reasons, print_volumes
from agseg.cli.site_segment import handed_over
from agseg.cli.words import organs_of, words_of

if TYPE_CHECKING:
    from agseg.batch.cluster import Cluster
    from agseg.report import BatchReport

NOT_AS_ASKED = frozenset({"W_MISSING_UIDS", "W_DUPLICATE_UID", "W_NOT_CODED", "E_DIMENSIONS"})
"""Warnings that say that DICOM objects were asked for and are missing, in whole or in part."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("segment")(segment)


def segment(
    context: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Folders (walked recursively), DICOM series or NIfTI files."),
    ] = None,
    more_inputs: Annotated[list[Path] | None, typer.Option("--input", "-i", metavar="PATH", help="The same as INPUT.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where results go.")] = Path("agseg-out"),
    organ: Annotated[
        list[str] | None,
        typer.Option(
            "--organ",
            "--roi-subset",
            metavar="NAME",
            help="Organ to segment (repeatable); default, and `all`: every one that the weights know.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="ID",
            help="Weights to use (repeatable: the first that knows an organ makes it), see `agseg weights list`; "
            "default: each organ's own.",
        ),
    ] = None,
    manifest: options.Manifest = None,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(metavar="auto|fp32|bf16|fp16", help="Number format of the network.")] = "auto",
    overlap: Annotated[
        float | None,
        typer.Option(
            metavar="0..0.9", min=0.0, max=0.9, help="Fraction shared by neighbouring tiles; default: the weights' own."
        ),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Crop to the body, largest tiles: faster, labels may differ slightly.")
    ] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Average with the mirror image: slower.")] = False,
    prune_depth: Annotated[
        int | None, typer.Option(metavar="1..4", help="ANU-Net only: stop at this depth, for speed.")
    ] = None,
    scout: Annotated[
        str,
        typer.Option(
            metavar="auto|off|ID",
            help="Coarse weights look for the organs first, the others compute only there; auto: where it pays.",
        ),
    ] = "auto",
    second_look: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Weights that look at the organs too: where they disagree, the review list says so. No mask changes; "
            "takes that network's time.",
        ),
    ] = None,
    multilabel: Annotated[
        bool, typer.Option("--ml", help="One labels.nii.gz (key: labels.json) instead of a file per organ.")
    ] = False,
    output_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="nifti|dicom-seg|dicom-sr|rtstruct|sc|pdf|stl|obj|viewer",
            help="What to write (repeatable, or with commas); default nifti.",
        ),
    ] = None,
    seg_encoding: Annotated[
        str, typer.Option(metavar="binary|labelmap", help="How seg.dcm stores its segments; labelmap is small, but new.")
    ] = "binary",
    preview: Annotated[bool, typer.Option("--preview/--no-preview", help="Draw an overlay picture per study.")] = True,
    attention: Annotated[bool, typer.Option("--attention", help="Write the attention gates' coefficients.")] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    deadline: options.Deadline = None,
    min_age: options.MinAge = 0.0,
    study_timeout: options.StudyTimeout = None,
    readers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes that read studies; each holds one more.")] = 1,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of the network on a CPU; default: one per core.")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Only paths below INPUT that match.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Exclude paths below INPUT that match.")] = None,
    num_parts: options.NumParts = 1,
    part_id: options.PartId = 0,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT|local[:N]|slurm", help="Do the studies on a Dask cluster (tls:// too)."),
    ] = None,
    cluster_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of the cluster's arguments (Slurm jobs, TLS certificates).")
    ] = None,
    include_identifiers: Annotated[
        bool,
        typer.Option(
            "--include-identifiers",
            help="Name patient, accession number and UIDs in records, table and page.",
        ),
    ] = False,
    csv: Annotated[str, typer.Option(metavar="plain|excel|excel-semicolon", help="How volumes.csv is written.")] = "plain",
    metrics: Annotated[Path | None, typer.Option(metavar="FILE", help="Write numbers of the run for Prometheus.")] = None,
    on_end: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Start this at the end, with run.json as its last word; no shell.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Post the run's numbers there at the end; no names, no paths.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add who ran what on which studies to a log of JSON lines.")
    ] = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Segment organs in CT and MR studies: masks on each study's own grid, volumes, one record per study."""
    from agseg.batch import Limits, Part
    from agseg.batch.job import DEFAULT_STUDY_TIMEOUT_S
    from agseg.errors import UsageError
    from agseg.io.outputs import Outputs, SegEncoding
    from agseg.io.tables import TableStyle
    from agseg.io.writers import WRITERS
    from agseg.models.precision import Precision
    from agseg.workflows import segment as workflow
    from agseg.workflows.options import SegmenterOptions, Shaping

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    paths = (*(inputs or []), *(more_inputs or []))
    if not paths:
        raise UsageError("no input given", hint="agseg segment ./studies --organ pancreas")
    options.check_times(deadline=deadline, study_timeout=study_timeout, min_age=min_age)
    if cluster is None:  # a cluster's devices are its own
        check_device(device)
    request = workflow.SegmentRequest(
        inputs=paths,
        output=output,
        home=options.home(),
        organs=organs_of(organ or ()),
        weights=tuple(weights or ()),
        manifest=manifest,
        offline=offline,
        second_look=second_look,
        options=SegmenterOptions(
            device=device,
            scout=scout,
            shaping=Shaping(
                precision=_choice("--precision", precision, tuple(Precision)),
                overlap=overlap,
                fast=fast,
                mirror=mirror,
                prune_depth=prune_depth,
            ),
            outputs=Outputs(
                kinds=tuple(
                    _choice("--output-type", kind.replace("_", "-"), tuple(WRITERS))
                    for kind in dict.fromkeys(words_of(output_type or ["nifti"]))
                ),
                multilabel=multilabel,
                preview=preview,
                attention=attention,
                seg_encoding=SegEncoding(_choice("--seg-encoding", seg_encoding, ("binary", "labelmap"))),
            ),
        ),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        limits=Limits(
            study_timeout_s=DEFAULT_STUDY_TIMEOUT_S if study_timeout is None else study_timeout,
            deadline_s=None if deadline is None else deadline * 60.0,
            min_age_s=min_age,
            readers=readers,
            ahead=readers + 1,
        ),
        threads=threads,
        part=Part(part_id, num_parts),
        cluster=_cluster(cluster, cluster_config, device),
        overwrite=overwrite,
        dry_run=dry_run,
        debug=debug,
        include_identifiers=include_identifiers,
        table_style=TableStyle(_choice("--csv", csv, tuple(TableStyle))),
        metrics=metrics,
        on_end=on_end,
        audit=audit,
        webhook=webhook,
    )
    if handed_over(context, request):
        return
    with console.progress("segmenting", quiet=quiet or as_json) as advance:
        report = workflow.segment(request, on_event=lambda event: show_event(advance, event))
    if as_json:
        console.document(report.to_dict())
    elif ((console.is_terminal() or dry_run) and not quiet) or verbose:
        show(report, output, dry_run=dry_run)
    elif not quiet:
        _one_line_each(report)
    better = report.environment.get("better_weights")
    if better and (console.is_terminal() or verbose) and not quiet and not as_json:
        console.note(better["text"])
    if not quiet and not as_json:
        record = None if dry_run else output / "run.json"
        for line in mute_ending(report, what="study", inputs=paths, expected="DICOM series, NIfTI, NRRD or MHA", record=record):
            console.note(line)
    if report.exit_code:
        raise typer.Exit(int(report.exit_code))


def _cluster(text: str | None, config: Path | None, device: str) -> Cluster | None:
    from agseg.batch.cluster import Cluster
    from agseg.errors import UsageError

    if text is not None:
        return Cluster.parse(text, config=config, use_gpus=device != "cpu")
    if config is not None:
        raise UsageError("--cluster-config needs --cluster", hint="--cluster slurm --cluster-config FILE")
    return None


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    from agseg.errors import UsageError

    if value not in allowed:
        raise UsageError(f"invalid value for {option}", value=value, expected=f"one of {', '.join(allowed)}")
    return value


def show(report: BatchReport, output: Path, *, dry_run: bool = False) -> None:
    """The run for people: a table of volumes, then what was not segmented and why; of a dry run, what would be done."""
    print_volumes(report)
    left_out = [study for study in report.studies if study.status.value in ("rejected", "failed", "deferred")]
    would = [study for study in left_out if dry_run and study.status.value == "deferred" and study.code is None]
    left_out = [study for study in left_out if study not in would]
    if left_out:
        print_reasons(left_out, title="Not to be done" if dry_run else "Not segmented")
    if would:
        console.print_line(f"To be read now, and segmented if they can be: {len(would)}")
        for study in would:
            console.print_line(f"  {study.input}")
    _say_what_is_missing(report)
    told = {**report.counts, "deferred": report.counts["deferred"] - len(would), "to be done": len(would)}
    counts = ", ".join(f"{count} {status}" for status, count in told.items() if count)
    weights = f" with {', '.join(one.id for one in report.weights)}" if report.weights else ""
    device = report.environment.get("device")
    if counts:
        where = f"nothing was written; results would be in {output}" if dry_run else f"results in {output}"
        console.note(f"{counts}{weights}{f' on {device}' if device else ''}; {where}")


def _one_line_each(report: BatchReport) -> None:
    """In cron: nothing on success, a line per study that was not segmented, the first time that it was not."""
    for study in report.studies:
        if study.new and study.status.value in ("rejected", "failed"):
            console.note(f"{study.status.value} {study.input}: {study.code} {study.message}")
    _say_what_is_missing(report)


def _say_what_is_missing(report: BatchReport) -> None:
    """A line for each new result that could not be given the form asked for."""
    for study in report.studies:
        for warned in study.warnings:
            if study.status.value == "done" and warned.code in NOT_AS_ASKED:
                console.note(f"{study.input}: {warned.code} {warned.message}")
