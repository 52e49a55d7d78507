"""Discovery: the studies below the inputs, and why every other file belongs to none.

Law of the ledger: every file is in exactly one study or in ``skipped``. Only headers are read here (and the first voxels of
NIfTI, MetaImage and NRRD, to tell label maps apart).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from agseg.errors import Code, InputError
from agseg.io.archives import ARCHIVE, look_into
from agseg.io.dicom.header import FIRST_READ_BYTES, read_header
from agseg.io.dicom.read import frames_of
from agseg.io.dicom.series import Series, group_series
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.finished import sealed_files
from agseg.io.label_maps import is_label_map
from agseg.io.lost_slices import by_folder, lies_beside, miss_unreadable, miss_unseen
from agseg.io.names import naming, spelled_out
from agseg.io.nifti_header import check_rectangular
from agseg.io.opening import open_regular
from agseg.io.readers import FoundVolume, Reader, claimed_by_suffix
from agseg.io.sniff import Content, sniff
from agseg.io.video.containers import FileKind, kind_of
from agseg.io.walk import CLIP_NOTE, UNSEEN, FoundFile, listed
from agseg.io.watch import Watch
from agseg.report import STUDY_JSON
from agseg.study import Discovery, Reason, Rejected, Skipped, Study, StudyKind

__all__ = ["discover", "find_studies"]


@dataclass
class _Ledger:
    """What has been found so far; each file ends in one of these. ``unseen``: which of the skipped nobody has looked at."""

    modalities: tuple[str, ...]
    dicom: list[tuple[FoundFile, SliceHeader]] = field(default_factory=list)
    broken: list[tuple[FoundFile, Rejected]] = field(default_factory=list)
    studies: list[Study] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unseen: list[Skipped] = field(default_factory=list)
    taken: set[Path] = field(default_factory=set)
    """Files that belong to the study of another one: a pair's image, a header's data file."""

    def skip(self, file: FoundFile, reason: str, detail: str = "") -> None:
        self.skipped.append(Skipped(file.path, reason, detail))


def discover(
    inputs: Sequence[Path], *, include: Iterable[str] = (), exclude: Iterable[str] = (), modalities: Sequence[str] = ("CT",)
) -> Discovery:
    """Find the studies below the inputs, in this process and without limits: for files that are trusted.

    :class:`agseg.batch.intake.Intake` does the same in a child process.

    Parameters
    ----------
    inputs
        Folders (walked through) and files.
    include, exclude
        Globs on paths below INPUT; ``*`` also matches ``/``.
    modalities
        As in :func:`find_studies`.

    Raises
    ------
    UsageError
        If an input does not exist.
    """
    files, skipped = listed(inputs, include=include, exclude=exclude)
    return find_studies(files, skipped, modalities=modalities)


def find_studies(
    files: Sequence[FoundFile],
    skipped: Sequence[Skipped],
    *,
    modalities: Sequence[str] = ("CT",),
    watch: Watch | None = None,
) -> Discovery:
    """The studies that the listed files make.

    Parameters
    ----------
    files, skipped
        From :func:`agseg.io.walk.listed`.
    modalities
        Of the scans that are looked for, ``"CT"`` and ``"MR"``. Formats that carry none are taken for the first.
    watch
        Looks after the examination of each file, which it knows by its place in ``files``.
    """
    watch = watch or Watch()
    ledger = _Ledger(tuple(modalities), skipped=[*skipped], unseen=[skip for skip in skipped if skip.reason in UNSEEN])
    own = _own_results(files, watch)
    for number, file in enumerate(files):
        if file.path in own:
            ledger.skip(file, Reason.OWN_OUTPUT)
            continue
        found = watch.examine(number, partial(_looked_at, file))
        if isinstance(found, Rejected):
            _refuse(file, found, ledger)
        else:
            found(ledger)
    _add_dicom(ledger)
    # A pair's image and a header's data file were met on their own; now they belong to their study.
    ledger.skipped = [skip for skip in ledger.skipped if skip.path not in ledger.taken]
    ledger.studies = [study for study in ledger.studies if study.rejected is None or study.files[0] not in ledger.taken]
    studies = _with_unique_ids(ledger.studies)
    return Discovery(tuple(studies), tuple(sorted(ledger.skipped, key=lambda skip: os.fspath(skip.path))))


def _own_results(files: Sequence[FoundFile], watch: Watch) -> set[Path]:
    """Files that a finished study's record vouches for; a study.json that no run could have written hides nothing."""
    own: set[Path] = set()
    for number, file in enumerate(files):
        if file.path.name == STUDY_JSON and not file.is_input:
            sealed = watch.examine(number, partial(sealed_files, file.path.parent))
            own.update(() if isinstance(sealed, Rejected) else (file.path.parent / name for name in sealed))
    return own


def _looked_at(file: FoundFile) -> Callable[[_Ledger], None]:
    """Examine a file; what that means for the ledger is done by the caller, who is not interrupted."""
    claimed = claimed_by_suffix(file.path.name)
    with open_regular(file.path) as stream:
        head = stream.read(FIRST_READ_BYTES)
    content = sniff(head)
    if isinstance(content, Reader) and content.header is not None:
        study = _found_volume(file, content, content.header)
        return partial(_add_volume, file=file, study=study)
    if isinstance(content, Reader):
        return partial(_add_slice, file=file, header=_header_of(file, head))
    if content is Content.EMPTY:
        raise InputError("the file is empty", code=Code.TRUNCATED)
    if claimed is not None:
        raise InputError("the content is not what the suffix says", code=claimed.broken)
    if content is Content.ARCHIVE:
        return partial(_add_archive, file=file, found=look_into(file.path))
    kind = kind_of(head)
    other = CLIP_NOTE if kind.is_video or kind is FileKind.IMAGE else ""
    return lambda ledger: ledger.skip(file, Code.UNSUPPORTED_INPUT if file.is_input else Reason.NOT_AN_IMAGE, other)


def _header_of(file: FoundFile, head: bytes) -> SliceHeader:
    """The header, its functional groups included: what they cost is this file's."""
    header = read_header(file.path, head=head, file_bytes=file.size)
    if header.is_enhanced:
        # Why they make no volume is said of their series.
        with suppress(InputError):
            frames_of(header)
    return header


def _add_slice(ledger: _Ledger, *, file: FoundFile, header: SliceHeader) -> None:
    ledger.dicom.append((file, header))


def _refuse(file: FoundFile, why: Rejected, ledger: _Ledger) -> None:
    """A file that cannot be used: no image at all, or a broken one."""
    if claimed_by_suffix(file.path.name) is None and why.code is Code.NOT_DICOM:
        ledger.skip(file, Reason.NOT_AN_IMAGE)
    else:
        ledger.broken.append((file, why))


# -- DICOM ----------------------------------------------------------------------------------------------------------------


def _add_dicom(ledger: _Ledger) -> None:
    series, skipped = group_series(ledger.dicom, modalities=ledger.modalities)
    ledger.skipped.extend(skipped)
    left: list[tuple[FoundFile, Rejected]] = []
    for file, why in ledger.broken:
        beside = [one for one in series if lies_beside(one, file)]
        for one in beside:
            miss_unreadable(one, file, why)
        if beside and _may_be_slice(file):
            ledger.skip(file, why.code, why.message)
        else:
            left.append((file, why))
    unseen = by_folder(ledger.unseen)
    for one in series:
        miss_unseen(one, unseen)
    keys: dict[tuple[Path, str], set[tuple[str, ...]]] = defaultdict(set)
    for one in series:
        keys[(one.files[0].root, _series_path(one))].add(one.key)
    for one in series:
        path = _series_path(one)
        alone = len(keys[(one.files[0].root, path)]) == 1
        ledger.studies.append(
            Study(
                id=path + one.name(alone=alone),
                root=one.files[0].root,
                files=tuple(file.path for file in one.files),
                kind=StudyKind.DICOM,
                modality=one.modality,
                reason=one.reason,
                rejected=one.rejected,
                warnings=tuple(one.warnings),
            )
        )
    _add_broken(left, ledger)


def _may_be_slice(file: FoundFile) -> bool:
    claimed = claimed_by_suffix(file.path.name)
    return claimed is None or claimed.header is None


def _series_path(series: Series) -> str:
    """The series' folder below INPUT, or the common ancestor of its folders; INPUT's own name for INPUT itself."""
    first = series.files[0]
    if first.is_input and len(series.files) == 1:
        return spelled_out(_stem(first.path.name))
    folders = sorted({file.folder for file in series.files})
    common = os.path.commonpath(folders) if all(folders) else ""
    return spelled_out(common or first.root.name or "input")


def _add_broken(broken: list[tuple[FoundFile, Rejected]], ledger: _Ledger) -> None:
    """Unreadable files beside no slices: one rejected study per DICOM folder or volume file; anything else is skipped."""
    folders: dict[tuple[Path, str], list[tuple[FoundFile, Rejected]]] = defaultdict(list)
    for file, why in broken:
        claimed = claimed_by_suffix(file.path.name)
        if claimed is not None and claimed.header is not None:
            ledger.studies.append(_volume_study(file, (file.path,), claimed, rejected=why))
        elif claimed is None and (file.size == 0 or why.code is Code.PERMISSION):
            ledger.skip(file, why.code, why.message)
        else:
            folders[(file.root, file.folder)].append((file, why))
    for (root, folder), group in folders.items():
        alone = group[0][0].is_input
        name = _stem(group[0][0].path.name) if alone else folder or root.name or "input"
        files = tuple(file.path for file, _ in group)
        first, why = group[0]
        if len(group) > 1:
            why = replace(why, message=naming(why.message, first.below))
        ledger.studies.append(Study(spelled_out(name), root, files, StudyKind.DICOM, rejected=why))


# -- formats with a volume in each file -----------------------------------------------------------------------------------


def _add_volume(ledger: _Ledger, *, file: FoundFile, study: Study | None) -> None:
    if study is None:
        ledger.skip(file, Reason.LABEL_MAP)
        return
    ledger.taken.update(study.files[1:])
    ledger.studies.append(replace(study, modality=ledger.modalities[0]))


def _found_volume(file: FoundFile, reader: Reader, header: Callable[[Path], FoundVolume]) -> Study | None:
    """The study that a file begins; None for a label map."""
    try:
        found = header(file.path)
        if is_label_map(found.values()):
            return None
        check_rectangular(found.grid)
    except InputError as error:
        rejected = Rejected(error.code, error.sentence())
        return _volume_study(file, reader.files(file.path), reader, rejected=rejected)
    return _volume_study(file, found.files, reader)


def _volume_study(file: FoundFile, files: tuple[Path, ...], reader: Reader, *, rejected: Rejected | None = None) -> Study:
    below = f"{file.folder}/{_stem(file.path.name)}" if file.folder else _stem(file.path.name)
    reason = "" if rejected else "one volume per file; the format carries no modality"
    return Study(spelled_out(below), file.root, files, reader.kind, reason=reason, rejected=rejected)


def _add_archive(ledger: _Ledger, *, file: FoundFile, found: Rejected | None) -> None:
    """An archive of images is a study that is not segmented; it keeps its suffix, for what was unpacked may lie beside it."""
    if found is None:
        ledger.skip(file, Code.UNSUPPORTED_INPUT, "an archive without images")
    else:
        ledger.studies.append(Study(spelled_out(file.below), file.root, (file.path,), ARCHIVE, modality="", rejected=found))


# -- names ----------------------------------------------------------------------------------------------------------------


def _stem(name: str) -> str:
    """The name without its suffix; ``.nii.gz`` counts as one."""
    return PurePosixPath(name.removesuffix(".gz")).stem or name


def _with_unique_ids(studies: Sequence[Study]) -> list[Study]:
    """Ids that name one study each: where two collide, the INPUT's name goes before and, if need be, a digest behind."""
    counts = Counter(study.id for study in studies)
    several = len({study.root for study in studies}) > 1
    named = [
        replace(study, id=f"{spelled_out(study.root.name)}/{study.id}") if several and counts[study.id] > 1 else study
        for study in studies
    ]
    counts = Counter(study.id for study in named)
    unique = []
    for study in named:
        if counts[study.id] > 1:
            digest = hashlib.sha256(os.fsencode(study.files[0])).hexdigest()[:6]
            study = replace(study, id=f"{study.id}-{digest}")
        unique.append(study)
    return sorted(unique, key=lambda study: study.id)
