"""A study's output folder, swapped in whole: nothing of it is visible before all of it is on the disk.

The files are written into a hidden folder directly below the output folder. Where the study has no folder yet, one rename
makes all of it visible. Where it has one (``--overwrite``, a changed input, a study whose folder also holds another study's)
its old ``study.json`` goes first (hidden until the end: it knows the old files), then each file is replaced, and the new
``study.json`` comes last. Files that agseg did not write stay, and those that somebody changed since, a corrected mask say,
step aside (``liver.edited.nii.gz``). Either way a folder with a ``study.json`` is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agseg.batch.earlier_aside import set_earlier_aside
from agseg.batch.job import StudyTask
from agseg.batch.json_text import json_text
from agseg.batch.output import make_folders, temporary_name
from agseg.errors import Code
from agseg.io.atomic import FILE_MODE, FOLDER_MODE, flush, output_error, write_text
from agseg.io.finished import CONTENTS, changed_files, contents_of, is_intact, load_record, named_files
from agseg.io.outputs import NIFTI, OutputFiles
from agseg.report import DISCLAIMER, STUDY_JSON, Measurement, StudyReport, StudyStatus
from agseg.volume import Volume, Warned

STUDY_SCHEMA = "agseg.study/2"

RETIRED_JSON = ".study.json"
"""The record of a result that is being replaced: its files are no result any more, but they are known."""

LEAVING_JSON = ".outdated.json"
"""The record of a result that is being set aside (see :mod:`agseg.batch.outdated`)."""


class StudyFolder:
    """Write a study's files into ``path``, then :meth:`publish`; whatever is not published is removed.

    Parameters
    ----------
    task
        The study; its folder is ``task.folder``.
    """

    def __init__(self, task: StudyTask) -> None:
        self.task = task
        self.path = task.root / temporary_name()

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(mode=FOLDER_MODE)
            self.path.chmod(FOLDER_MODE)
        except OSError as error:
            raise output_error(error, "a study's folder cannot be made") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise output_error(error, "a study's results cannot be written") from error

    def publish(
        self,
        volume: Volume | None = None,
        *,
        organs: tuple[Measurement, ...] = (),
        warnings: tuple[Warned, ...] = (),
        seconds: dict[str, float] | None = None,
        outputs: Mapping[str, OutputFiles] | None = None,
        values: Mapping[str, int] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> StudyReport:
        """Write study.json, make sure that everything is on the disk, and make it visible.

        Parameters
        ----------
        volume
            The study's volume, for its shape, spacing and modality; its own and the study's warnings come first. A clip has
            none.
        organs, warnings, seconds
            As in the record. Organs of an earlier result that stay (``task.plan.kept``) are among them.
        outputs
            The files written, by output. Those that stay of an earlier result need not be named.
        values
            Label value of each organ, in masks with several.
        extra
            More for study.json and the record (device fallbacks, files of attention maps, ...).

        Returns
        -------
        report
            Status ``done``, with every file written.

        Raises
        ------
        OutputError
            If something cannot be written; then nothing of it is visible.
        """
        edited = edited_files(self.task.folder)
        if edited:
            said = f"changed since agseg wrote them, and kept as *.edited: {', '.join(edited)}"
            warnings = (*warnings, Warned(Code.EDITED, said))
        new = tuple(sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()))
        made, kept = self.task.provenance, self.task.plan.kept
        read = () if volume is None else volume.warnings
        others = tuple(one for one in kept.weights if one.id not in {mine.id for mine in made.weights})
        report = StudyReport(
            input=self.task.study.id,
            output=self.task.output,
            status=StudyStatus.DONE,
            warnings=tuple(dict.fromkeys((*self.task.study.warnings, *read, *warnings))),
            shape=None if volume is None else volume.grid.shape,
            spacing_mm=None if volume is None else volume.grid.spacing_mm,
            modality=self.task.study.modality if volume is None else volume.modality,
            organs=tuple(replace(organ, run=organ.run or made.run) if organ.weights else organ for organ in organs),
            files=(*sorted({*new, *kept.files}), STUDY_JSON),
            seconds=seconds,
            weights=(*made.weights, *others),
            run=made.run,
            source=self.task.study.source,
            extra=dict(extra or {}),
        )
        record = {
            "schema": STUDY_SCHEMA,
            "disclaimer": DISCLAIMER,
            **report.to_dict(),
            **made.to_dict(),
            "networks": self._networks(),
            "outputs": {name: files.to_dict() for name, files in _joined(kept.outputs, outputs or {}).items()},
            "label_values": {**kept.values, **(values or {})},
        }
        try:
            record[CONTENTS] = contents_of(self.path, new) | contents_of(self.task.folder, kept.files - set(new))
            write_text(self.path / STUDY_JSON, json_text(record))
            self._flush()
            self._swap_in(new, report)
        except OSError as error:
            raise output_error(error, "a study's results cannot be written") from error
        return report

    def _networks(self) -> list[dict[str, Any]]:
        """The networks of the record: those of this run as it used them, and those whose organs stay."""
        kept = {network["id"]: network for network in self.task.plan.kept.networks}
        mine = {network["id"]: network for network in self.task.provenance.to_dict()["networks"]}
        stay = {name: network for name, network in kept.items() if name not in self.task.plan.todo}
        return [*({**mine, **stay}).values()]

    def _flush(self) -> None:
        """Modes as promised, and everything on the disk."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                handle = os.open(Path(folder) / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    os.fchmod(handle, FILE_MODE)
                    os.fsync(handle)
                finally:
                    os.close(handle)
            Path(folder).chmod(FOLDER_MODE)
            flush(Path(folder))

    def _swap_in(self, new: tuple[str, ...], report: StudyReport) -> None:
        target = self.task.folder
        parent = make_folders(self.task.root, "/".join(self.task.output.split("/")[:-1]))
        if not os.path.lexists(target):
            self.path.rename(target)
            flush(parent)
            return
        make_folders(self.task.root, self.task.output)
        # First: an interruption then leaves a record whose files are not all there, and the study is done again.
        for name in edited_files(target):
            (target / name).rename(_free_name(target / name))
        for name in (LEAVING_JSON, STUDY_JSON):
            with suppress(FileNotFoundError):
                (target / name).replace(target / RETIRED_JSON)
        old = load_record(target, name=RETIRED_JSON)
        flush(target)
        set_earlier_aside(target, old, report, kept=self.task.plan.kept.files, fingerprint=self.task.provenance.fingerprint)
        for name in new:
            if "/" in name:
                make_folders(target, name.rpartition("/")[0])
            (self.path / name).replace(target / name)
        for name in named_files(old) - set(report.files):
            (target / name).unlink(missing_ok=True)
        (self.path / STUDY_JSON).replace(target / STUDY_JSON)
        (target / RETIRED_JSON).unlink(missing_ok=True)
        flush(target)


def _joined(kept: Mapping[str, OutputFiles], new: Mapping[str, OutputFiles]) -> dict[str, OutputFiles]:
    """The outputs of a folder: what is new takes the place of what was, but a file per organ joins the others."""
    taken = {file for files in new.values() for file in files.files}
    stay = {name: files for name, files in kept.items() if name == NIFTI or not taken & set(files.files)}
    joined = {**stay, **new}
    if NIFTI in kept and NIFTI in new:
        files, organs = ({**dict.fromkeys(a), **dict.fromkeys(b)} for a, b in (
            (kept[NIFTI].files, new[NIFTI].files), (kept[NIFTI].organs, new[NIFTI].organs),
        ))  # fmt: skip
        joined[NIFTI] = OutputFiles(tuple(files), tuple(organs))
    return joined


def edited_files(folder: Path) -> tuple[str, ...]:
    """Files of a finished study that are not what the run wrote any more: somebody corrected, or something damaged them.

    Records of before hold no digests: there, a file that is younger than its record counts.
    """
    record = load_record(folder)
    if record is None:
        return ()
    there = [name for name in sorted(named_files(record) - {STUDY_JSON}) if os.path.lexists(folder / name)]
    if CONTENTS in record:
        return tuple(name for name in there if not is_intact(folder, record, name))
    edited = []
    with suppress(OSError):
        written_ns = (folder / STUDY_JSON).lstat().st_mtime_ns
        edited = [name for name in there if (folder / name).lstat().st_mtime_ns > written_ns]
    return tuple(edited)


def _free_name(path: Path) -> Path:
    """``liver.edited.nii.gz`` for ``liver.nii.gz``, or with a number where that is taken."""
    stem, dot, suffix = path.name.partition(".")
    number = 1
    while True:
        free = path.with_name(f"{stem}.edited{'' if number == 1 else f'-{number}'}{dot}{suffix}")
        if not os.path.lexists(free):
            return free
        number += 1


def read_record(folder: Path) -> dict[str, Any] | None:
    """The study.json of a finished study, or None where there is none, or a file of it is not what the run wrote."""
    record = load_record(folder)
    return None if record is None or changed_files(folder, record) else record


def published_by_this_run(task: StudyTask) -> StudyReport | None:
    """The record of a study that is complete on the disk, although its process ended before it could say so."""
    record = read_record(task.folder)
    if record is None or not task.provenance.made(record):
        return None
    return StudyReport.from_dict(record)
