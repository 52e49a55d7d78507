"""Pull series from an archive; one series that fails costs one series, an archive that is down is asked once.

Images that came earlier are opened by a child process, as every input is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from agseg.batch.intake import Intake
from agseg.batch.output import claim_output
from agseg.errors import AgsegError, PacsError
from agseg.io.pacs.archive import Archive
from agseg.io.pacs.folder import arriving, has_arrived, hashed_name, series_folder
from agseg.io.pacs.query import PacsQuery, RemoteSeries
from agseg.workflows.pacs import GiveUp, PacsRecord, PacsReport, PacsStatus, Progress


def pull(
    archive: Archive,
    *,
    query: PacsQuery,
    output: Path,
    limit: int | None = None,
    elsewhere: Sequence[Path] = (),
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> PacsReport:
    """Bring the series that match into ``output``; those that are there, complete, are left alone.

    Parameters
    ----------
    elsewhere
        Folders of other archives: a series that has come from one of them is not fetched again.

    Raises
    ------
    PacsError
        If the archive cannot even be searched.
    OutputError, LockedError
        If the folder cannot be written to, the disk is full, or another run holds the folder.
    """
    with claim_output(output, dry_run=dry_run), Intake() as intake:
        give_up = GiveUp()
        records: list[PacsRecord] = []
        wanted: list[RemoteSeries] = []
        for found in _search(archive, query, give_up):
            if isinstance(found, PacsRecord):
                records.append(found)
            elif limit is None or len(wanted) < limit:
                wanted.append(found)
        for number, series in enumerate(wanted):
            if on_progress is not None:
                on_progress(number, len(wanted))
            records.append(_pull_series(archive, series, (output, *elsewhere), give_up, intake, dry_run=dry_run))
    return PacsReport("pull", tuple(records))


def _search(archive: Archive, query: PacsQuery, give_up: GiveUp) -> Iterator[RemoteSeries | PacsRecord]:
    """The series of every study that matches; a study whose series cannot be found is a record of its own."""
    for study in archive.find_studies(query):
        path = hashed_name(study.study_uid)
        if give_up.reason is not None:
            yield _failed(path, give_up.reason)
            continue
        try:
            yield from archive.find_series(study, query)
            give_up.succeeded()
        except PacsError as error:
            give_up.failed(error)
            yield _failed(path, error)


def _pull_series(
    archive: Archive, series: RemoteSeries, folders: Sequence[Path], give_up: GiveUp, intake: Intake, *, dry_run: bool
) -> PacsRecord:
    path = series_folder(folders[0], series).relative_to(folders[0]).as_posix()
    if give_up.reason is not None:
        return _failed(path, give_up.reason)
    try:
        record = _bring(archive, series, folders, path, intake, dry_run=dry_run)
    except PacsError as error:
        give_up.failed(error)
        return _failed(path, error)
    give_up.succeeded()
    return record


def _bring(
    archive: Archive, series: RemoteSeries, folders: Sequence[Path], path: str, intake: Intake, *, dry_run: bool
) -> PacsRecord:
    def patient_of(file: Path) -> str | None:
        return intake.identifiers(file).get("PatientID")

    instances = archive.instances(series.study_uid, series.series_uid, expected=series.n_instances)
    if any(has_arrived(folder, series, instances, patient_of=patient_of) for folder in folders):
        return PacsRecord(path, PacsStatus.PRESENT, len(instances))
    if dry_run:
        return PacsRecord(path, PacsStatus.WOULD, len(instances))
    with arriving(folders[0], series, instances) as arrival:
        archive.fetch(series, instances, arrival.accept)
        if arrival.missing:
            raise PacsError(
                "the archive did not send all images of a series", value=f"{arrival.missing} of {len(instances)} missing"
            )
        if not arrival.count:
            raise PacsError("the archive sent no image of a series")
    return PacsRecord(path, PacsStatus.PULLED, arrival.count)


def _failed(path: str, error: AgsegError) -> PacsRecord:
    return PacsRecord(path, PacsStatus.FAILED, 0, error.code, error.sentence(), error.hint)
