"""Options that several commands share, and the only place that reads the environment for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from agseg.cli.words import lower_case, minutes, seconds

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only print errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what is being done.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks; they may contain header values.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        metavar="auto|cpu|gpu[:N]|cuda[:N]|mps",
        callback=lower_case,
        help="Compute device; auto picks a GPU if there is one and reports the choice.",
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option("--manifest", metavar="FILE", help="A site's own weights manifest, merged over the packaged one."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Do not access the network; missing weights exit 7.")]
WeightsId = Annotated[
    str | None, typer.Option("--weights", metavar="ID", help="An entry of the weights manifest, see `agseg weights list`.")
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do again what already has results.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="MIN|5h", parser=minutes, help="Begin nothing later than this (minutes, or a unit)."),
]
MinAge = Annotated[
    float,
    typer.Option(
        "--min-age", metavar="S|5m", parser=seconds, help="Defer what has files younger than this (seconds, or with a unit)."
    ),
]
StudyTimeout = Annotated[
    float | None,
    typer.Option(
        "--study-timeout",
        metavar="S|1h",
        parser=seconds,
        help="Give a study, or clip, up after this long (seconds, or with a unit); default: an hour.",
    ),
]
NumParts = Annotated[int, typer.Option("--num-parts", metavar="N", min=1, help="Number of processes that share the work.")]
PartId = Annotated[int, typer.Option("--part-id", metavar="I", min=0, help="Which of them this is, from 0.")]

PacsUrl = Annotated[
    str,
    typer.Option("--pacs", metavar="URL", envvar="AGSEG_PACS", help="https://host/dicom-web, or dicom://AETITLE@host:port."),
]


def check_times(*, deadline: float | None, study_timeout: float | None, min_age: float) -> None:
    """Refuse times that no run can keep.

    Raises
    ------
    UsageError
        If one is not positive, or the age is negative.
    """
    from agseg.errors import UsageError

    for option, value in (("--deadline", deadline), ("--study-timeout", study_timeout)):
        if value is not None and not value > 0:
            raise UsageError(f"{option} must be more than 0", value=f"{value:g}")
    if not min_age >= 0:
        raise UsageError("--min-age must be 0 or more", value=f"{min_age:g}")


def pacs_secret(name: str) -> str:
    """``$AGSEG_PACS_USER``, ``$AGSEG_PACS_PASSWORD`` or ``$AGSEG_PACS_TOKEN``; empty if it is not set."""
    return os.environ.get(f"AGSEG_PACS_{name}", "")


def home() -> Path:
    """``$AGSEG_HOME``, or the platform's cache folder: where weights (and a site's ``config.yaml``) live."""
    if given := os.environ.get("AGSEG_HOME"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("agseg", appauthor=False)


def is_first_process() -> bool:
    """Whether this process speaks for all that ``torchrun`` has started; true without it."""
    return os.environ.get("RANK", "0") == "0"


def launched_processes() -> int:
    """Processes that ``torchrun`` has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
