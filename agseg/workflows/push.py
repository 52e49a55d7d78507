"""Push results to an archive: what it has not confirmed is sent, and what it says it has is held against ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from agseg.errors import AgsegError, InputError, PacsError, UsageError
from agseg.io.pacs.archive import Archive
from agseg.io.pacs.compare import difference
from agseg.io.pacs.objects import LocalObject, find_objects, sha256_of
from agseg.io.pacs.sent import note_sent, was_sent
from agseg.io.pacs.stow import AlreadyHeldError
from agseg.workflows.pacs import GiveUp, PacsRecord, PacsReport, PacsStatus, Progress


def push(
    archive: Archive,
    *,
    paths: Sequence[Path],
    everything: bool = False,
    only_known_studies: bool = False,
    only_unconfirmed: bool = False,
    asks: bool = True,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> PacsReport:
    """Send the DICOM objects below the paths that the archive does not hold yet; results that are not current stay here.

    Parameters
    ----------
    everything
        Also objects that agseg did not make; by default only its own results are sent.
    only_known_studies
        Leave results here whose study the archive does not have: it was withdrawn, or is another archive's.
    only_unconfirmed
        Do not ask again for what the archive has confirmed to have taken.
    asks
        False sends without asking what is there, to routers that only store; what was confirmed is not sent again.

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
        if found.stale is None:
            groups[(found.uids.study, found.uids.series)].append(found)
        else:
            records.append(_stale(found, found.stale))
    give_up, patients = GiveUp(), _Patients(archive)
    # Images before segments before reports: nothing is sent before what it refers to.
    if only_unconfirmed or not asks:
        records += _take_confirmed(archive, groups)
    for number, group in enumerate(sorted(groups.values(), key=lambda group: (group[0].rank, group[0].path))):
        if on_progress is not None:
            on_progress(number, len(groups))
        if asks:
            records += _push_series(archive, group, give_up, patients, only_known=only_known_studies, dry_run=dry_run)
        else:
            records += _send_unasked(archive, group, give_up, dry_run=dry_run)
    return PacsReport("push", tuple(records))


def _take_confirmed(archive: Archive, groups: dict[tuple[str, str], list[LocalObject]]) -> list[PacsRecord]:
    """Take out of the groups what the archive has confirmed."""
    present = []
    for key, group in list(groups.items()):
        known = [found for found in group if found.is_own and _is_noted(archive, found)]
        present += [_record(found, PacsStatus.PRESENT) for found in known]
        groups[key] = [found for found in group if found not in known]
        if not groups[key]:
            del groups[key]
    return present


def _is_noted(archive: Archive, found: LocalObject) -> bool:
    return was_sent(found.path, place=archive.place, sop_uid=found.uids.sop, sha256=sha256_of(found.path))


def _send_unasked(archive: Archive, group: list[LocalObject], give_up: GiveUp, *, dry_run: bool) -> Iterator[PacsRecord]:
    if dry_run or give_up.reason is not None:
        status = PacsStatus.WOULD if dry_run else PacsStatus.FAILED
        yield from (_record(found, status, give_up.reason) for found in group)
        return
    try:
        failures = archive.store([found.path for found in group])
    except (PacsError, InputError) as error:
        give_up.failed(error)
        yield from (_record(found, PacsStatus.FAILED, error) for found in group)
        return
    give_up.succeeded()
    yield from (_sent(archive, found, failures.get(found.path)) for found in group)


class _Patients:
    """Under which patient an archive has a study; each study is asked for once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._known: dict[str, str | None] = {}

    def of(self, study_uid: str) -> str | None:
        if study_uid not in self._known:
            self._known[study_uid] = self._archive.find_patient(study_uid)
        return self._known[study_uid]


def _push_series(
    archive: Archive, group: list[LocalObject], give_up: GiveUp, patients: _Patients, *, only_known: bool, dry_run: bool
) -> Iterator[PacsRecord]:
    if give_up.reason is not None:
        yield from (_record(found, PacsStatus.FAILED, give_up.reason) for found in group)
        return
    try:
        patient_id = patients.of(group[0].uids.study)
        if patient_id is None and only_known:
            yield from (_stale(found, "the archive does not have its study") for found in group)
            return
        if patient_id is not None and any(patient_id.strip() != found.uids.patient_id for found in group):
            raise PacsError("the archive has this object's study under another patient")
        held = archive.instances(group[0].uids.study, group[0].uids.series)
        new = [found for found in group if found.uids.sop not in held]
        failures = archive.store([found.path for found in new]) if new and not dry_run else {}
    except (PacsError, InputError) as error:
        give_up.failed(error)
        yield from (_record(found, PacsStatus.FAILED, error) for found in group)
        return
    give_up.succeeded()
    for found in group:
        if found.uids.sop in held or isinstance(failures.get(found.path), AlreadyHeldError):
            yield _compared(archive, found)
        elif dry_run:
            yield _record(found, PacsStatus.WOULD)
        else:
            yield _sent(archive, found, failures.get(found.path))


def _sent(archive: Archive, found: LocalObject, failure: PacsError | None) -> PacsRecord:
    if failure is not None:
        return _record(found, PacsStatus.FAILED, failure)
    _note(archive, found)
    return _record(found, PacsStatus.PUSHED)


def _compared(archive: Archive, found: LocalObject) -> PacsRecord:
    """An object that the archive lists, under the same patient, is present if it is the same."""
    uids = found.uids
    try:
        if not (found.is_own and _is_noted(archive, found)):
            copies: list[bytes] = []
            archive.fetch_object(uids.study, uids.series, uids.sop, copies.append)
            if not copies:
                raise PacsError("the archive lists this object, and does not give it back to be compared")
            for copy in copies:
                if (problem := difference(found.path, copy)) is not None:
                    raise PacsError(f"the archive is not given this object: {problem}")
            _note(archive, found)
    except PacsError as error:
        return _record(found, PacsStatus.FAILED, error)
    return _record(found, PacsStatus.PRESENT)


def _note(archive: Archive, found: LocalObject) -> None:
    if found.is_own:
        note_sent(found.path, place=archive.place, sop_uid=found.uids.sop, sha256=sha256_of(found.path))


def _stale(found: LocalObject, why: str) -> PacsRecord:
    return PacsRecord(str(found.path), PacsStatus.OUTDATED, 1, message=why)


def _record(found: LocalObject, status: PacsStatus, error: AgsegError | None = None) -> PacsRecord:
    if error is not None:
        return PacsRecord(str(found.path), status, 1, error.code, error.sentence(), error.hint)
    return PacsRecord(str(found.path), status, 1)
