"""Pull series from an archive, and push results to it; one series that fails costs one series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from agseg.batch.output import claim_output
from agseg.errors import Code, ExitCode, InputError, PacsError, UsageError
from agseg.io.pacs.archive import Archive, PacsQuery, RemoteSeries
from agseg.io.pacs.folder import arriving, has_arrived, series_folder
from agseg.io.pacs.objects import LocalObject, find_objects

__all__ = ["PacsRecord", "PacsReport", "PacsStatus", "pull", "push"]

PACS_SCHEMA = "agseg.pacs/1"

Progress = Callable[..., None]


class PacsStatus(StrEnum):
    """What became of a series or an object."""

    PULLED = "pulled"
    PUSHED = "pushed"
    PRESENT = "present"
    WOULD = "would"
    OUTDATED = "outdated"
    FAILED = "failed"


@dataclass(frozen=True)
class PacsRecord:
    """One series (pull) or one file (push); ``path`` is below the output, or as it was given."""

    path: str
    status: PacsStatus
    instances: int
    code: Code | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "path": self.path,
            "status": self.status.value,
            "instances": self.instances,
            "code": None if self.code is None else str(self.code),
            "message": self.message,
        }


@dataclass(frozen=True)
class PacsReport:
    """What one pull or push did."""

    action: str
    records: tuple[PacsRecord, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of records per status."""
        return {status.value: sum(record.status is status for record in self.records) for status in PacsStatus}

    @property
    def exit_code(self) -> ExitCode:
        """5 if nothing matched, 4 if all failed, 3 if some did."""
        failed = self.counts[PacsStatus.FAILED]
        matched = len(self.records) - self.counts[PacsStatus.OUTDATED]
        if not matched:
            return ExitCode.NO_STUDY
        if failed:
            return ExitCode.NONE_DONE if failed == matched else ExitCode.SOME_NOT_DONE
        return ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "schema": PACS_SCHEMA,
            "action": self.action,
            "exit_code": int(self.exit_code),
            "counts": self.counts,
            "records": [record.to_dict() for record in self.records],
        }


def pull(
    archive: Archive,
    *,
    query: PacsQuery,
    output: Path,
    limit: int | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> PacsReport:
    """Bring the series that match into ``output``; those that are there, complete, are left alone.

    Raises
    ------
    PacsError
        If the archive cannot even be searched.
    OutputError, LockedError
        If the folder cannot be written to, the disk is full, or another run holds the folder.
    """
    with claim_output(output, dry_run=dry_run):
        wanted = archive.find_series(query)[:limit]
        records = []
        for number, series in enumerate(wanted):
            if on_progress is not None:
                on_progress(number, len(wanted))
            records.append(_pull_series(archive, series, output, dry_run=dry_run))
    return PacsReport("pull", tuple(records))


def _pull_series(archive: Archive, series: RemoteSeries, output: Path, *, dry_run: bool) -> PacsRecord:
    path = series_folder(output, series).relative_to(output).as_posix()
    try:
        instances = archive.instances(series.study_uid, series.series_uid)
        if instances and has_arrived(output, series, instances):
            return PacsRecord(path, PacsStatus.PRESENT, len(instances))
        if dry_run:
            return PacsRecord(path, PacsStatus.WOULD, len(instances))
        with arriving(output, series) as arrival:
            archive.fetch(series, arrival.accept)
            if missing := arrival.missing(instances):
                raise PacsError(
                    "the archive did not send all images of a series", value=f"{missing} of {len(instances)} missing"
                )
            if not arrival.names:
                raise PacsError("the archive sent no image of a series")
        return PacsRecord(path, PacsStatus.PULLED, len(arrival.names))
    except PacsError as error:
        return PacsRecord(path, PacsStatus.FAILED, 0, error.code, error.sentence())


def push(
    archive: Archive,
    *,
    paths: Sequence[Path],
    everything: bool = False,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> PacsReport:
    """Send the DICOM objects below the paths that the archive does not hold yet; results that are not current stay here.

    Parameters
    ----------
    everything
        Also objects that agseg did not make; by default only its own results are sent.

    Raises
    ------
    UsageError
        If a path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise UsageError("there is nothing here to push", path=path)
    groups: dict[tuple[str, str], list[LocalObject]] = defaultdict(list)
    records: list[PacsRecord] = []
    for found in find_objects(paths, everything=everything):
        if found.current:
            groups[(found.study_uid, found.series_uid)].append(found)
        else:
            records.append(PacsRecord(str(found.path), PacsStatus.OUTDATED, 1))
    # Images before segments before reports: nothing is sent before what it refers to.
    for number, group in enumerate(sorted(groups.values(), key=lambda group: (group[0].rank, group[0].path))):
        if on_progress is not None:
            on_progress(number, len(groups))
        records += _push_series(archive, group, dry_run=dry_run)
    return PacsReport("push", tuple(records))


def _push_series(archive: Archive, group: list[LocalObject], *, dry_run: bool) -> Iterator[PacsRecord]:
    try:
        held = archive.instances(group[0].study_uid, group[0].series_uid)
        new = {found.sop_uid: found.path for found in group if found.sop_uid not in held}
        if new and not dry_run:
            archive.store(list(new.values()))
    except (PacsError, InputError) as error:
        yield from (PacsRecord(str(f.path), PacsStatus.FAILED, 1, error.code, error.sentence()) for f in group)
        return
    done = PacsStatus.WOULD if dry_run else PacsStatus.PUSHED
    for found in group:
        yield PacsRecord(str(found.path), done if new.get(found.sop_uid) == found.path else PacsStatus.PRESENT, 1)
