"""The writers of a finished mask, one per form. A new form is one file with its function, and one line in :data:`WRITERS`.

Importing this module loads no library: each writer imports what it needs when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.errors import UsageError
from agseg.extras import is_installed, missing
from agseg.io.outputs import LABELS, NIFTI, Outputs, OutputType, Written
from agseg.report import Measurement, WeightsRef
from agseg.study import Study
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from agseg.io.dicom_out.write import DicomObjects


@dataclass(frozen=True, eq=False)
class Result:
    """A finished mask with all that a writer may want to know.

    Parameters
    ----------
    study, volume
        The source: its files and its image.
    mask
        uint8 labels (i, j, k) on the source's grid.
    measurements
        Of the organs that were asked for; each says which weights made it.
    weights, shaping
        The weights and the settings that made the mask.
    outputs
        What is wanted.
    """

    study: Study
    volume: Volume
    mask: LabelMask
    measurements: tuple[Measurement, ...]
    weights: tuple[WeightsRef, ...]
    shaping: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)

    @cached_property
    def dicom(self) -> DicomObjects:
        """The DICOM objects of this result, which share their source and refer to each other."""
        from agseg.io.dicom_out.write import DicomObjects

        return DicomObjects.of_study(
            self.study,
            self.mask,
            measurements=self.measurements,
            weights=self.weights,
            parameters=self.shaping,
            encoding=self.outputs.seg_encoding,
        )


@dataclass(frozen=True)
class Writer:
    """One form of a mask.

    Parameters
    ----------
    name
        As ``--output-type`` has it.
    write
        Writes the files of one result into a folder.
    module, extra
        A library that the writer needs, and the extra of agseg that brings it; empty for none.
    """

    name: str
    write: Callable[[Path, Result], Written]
    module: str = ""
    extra: str = ""


def _nifti(folder: Path, result: Result) -> Written:
    from agseg.io.label_files import write_labels, write_organs

    return Written(write_labels(folder, result.mask) if result.outputs.multilabel else write_organs(folder, result.mask))


def _stl(folder: Path, result: Result) -> Written:
    from agseg.io.stl import write_meshes

    return Written(write_meshes(folder, result.mask))


def _obj(folder: Path, result: Result) -> Written:
    from agseg.io.obj import write_objs

    return Written(write_objs(folder, result.mask))


def _viewer(folder: Path, result: Result) -> Written:
    from agseg.io.html.viewer import write_viewer

    return Written(write_viewer(folder, result.volume, result.mask, title=result.study.id))


def _screen(kind: OutputType) -> Callable[[Path, Result], Written]:
    """Pictures of the result as DICOM objects, for workstations that show neither segmentations nor reports."""

    def write(folder: Path, result: Result) -> Written:
        from agseg.io.dicom_out.screens import write_pdf, write_sc
        from agseg.io.mosaic import render_mosaic
        from agseg.io.preview import render_preview

        objects = result.dicom
        if objects.result is None:
            return Written(warnings=() if objects.why is None else (objects.why,), is_complete=False)
        shown = (result.volume, result.mask, result.measurements)
        pictures = (render_preview(*shown), render_mosaic(*shown))
        return Written((write_sc if kind is OutputType.SC else write_pdf)(folder, objects.result, pictures))

    return write


def _dicom(kind: OutputType) -> Callable[[Path, Result], Written]:
    return lambda folder, result: result.dicom.write(kind, folder)


_ALL = (
    Writer(OutputType.NIFTI, _nifti),
    Writer(OutputType.DICOM_SEG, _dicom(OutputType.DICOM_SEG), "highdicom", "dicom"),
    Writer(OutputType.DICOM_SR, _dicom(OutputType.DICOM_SR), "highdicom", "dicom"),
    Writer(OutputType.RTSTRUCT, _dicom(OutputType.RTSTRUCT), "highdicom", "dicom"),
    Writer(OutputType.SC, _screen(OutputType.SC)),
    Writer(OutputType.PDF, _screen(OutputType.PDF)),
    Writer(OutputType.STL, _stl),
    Writer(OutputType.OBJ, _obj),
    Writer(OutputType.VIEWER, _viewer),
)

WRITERS: dict[str, Writer] = {str(writer.name): writer for writer in _ALL}
"""By name."""


def check_outputs(kinds: Sequence[str]) -> None:
    """Refuse what this installation cannot write, before a run rather than after each study's inference.

    Raises
    ------
    UsageError
        For an unknown name, or a missing library; it names the extra that brings it.
    """
    for kind in kinds:
        writer = WRITERS.get(kind)
        if writer is None:
            raise UsageError("no writer has this name", value=kind, expected=f"one of {', '.join(WRITERS)}")
        if writer.module and not is_installed(writer.module):
            raise missing(writer.module, purpose=f"the output {kind}", extra=writer.extra)


def write_all(folder: Path, result: Result, *, write: Sequence[str] | None = None) -> dict[str, Written]:
    """Write forms of the mask into the folder, by the names of records (:attr:`agseg.io.outputs.Outputs.wanted`).

    A mask that a form cannot hold (no UIDs to refer to, no code for an organ) is not lost: NIfTI is written then too.

    Parameters
    ----------
    write
        Those to write; all that are wanted by default.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    names = result.outputs.wanted if write is None else write
    written = {name: _writer(name).write(folder, result) for name in names if _kind(name) in WRITERS}
    if not {NIFTI, LABELS} & set(written) and not all(one.is_complete for one in written.values()):
        form = LABELS if result.outputs.multilabel else NIFTI
        written[form] = _writer(form).write(folder, result)
    return written


def _kind(name: str) -> str:
    """The writer's name of an output: masks in one file are a form of NIfTI, encodings are forms of DICOM SEG."""
    return NIFTI if name == LABELS else name.partition(":")[0]


def _writer(name: str) -> Writer:
    return WRITERS[_kind(name)]
