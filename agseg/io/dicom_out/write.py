"""One mask as the DICOM objects that were asked for: ``seg.dcm``, ``sr.dcm``, ``rtstruct.dcm``.

This is what the segment workflow calls. A source without the UIDs that results must refer to gives no objects and a warning;
the masks and the report are written all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.read import read_headers
from agseg.io.dicom_out.result import DicomResult
from agseg.io.dicom_out.rtstruct import write_rtstruct
from agseg.io.dicom_out.seg import SegEncoding, write_seg
from agseg.io.dicom_out.source import DicomSource
from agseg.io.dicom_out.sr import write_sr
from agseg.report import Measurement, WeightsRef
from agseg.study import Study, StudyKind
from agseg.volume import LabelMask, Warned

__all__ = ["DicomKind", "Written", "write_from_headers", "write_objects"]

NOT_SHAPING = frozenset({"device", "outputs", "multilabel", "preview", "attention"})
"""Parameters of a run that do not shape its masks. They stay out of the derived UIDs: a run that is repeated with a preview, or
on another machine with the same outcome, makes the same objects.
"""

_INSTEAD = "no DICOM objects are written, the masks are NIfTI files"


class DicomKind(StrEnum):
    """What can be asked for, as ``--output-type`` writes it."""

    SEG = "dicom-seg"
    SR = "dicom-sr"
    RTSTRUCT = "rtstruct"


@dataclass(frozen=True)
class Written:
    """Names of the files written, in the given folder, and what is to be noted about them.

    ``is_complete``: the objects hold every organ that is present; where they do not, its mask is needed in another form.
    """

    files: tuple[str, ...]
    warnings: tuple[Warned, ...] = ()
    is_complete: bool = True


def write_objects(
    folder: Path,
    *,
    kinds: Collection[DicomKind | str],
    study: Study,
    mask: LabelMask,
    measurements: Sequence[Measurement],
    weights: Sequence[WeightsRef],
    parameters: Mapping[str, Any],
    encoding: SegEncoding = SegEncoding.BINARY,
) -> Written:
    """Write the objects of one study into its folder; see :func:`write_from_headers`.

    A study that is no DICOM series has nothing that an object could refer to: it gets a warning and no objects.
    """
    if study.kind != StudyKind.DICOM:
        why = Warned(Code.MISSING_UIDS, f"the input is not DICOM: {_INSTEAD}")
        return Written((), (why,), is_complete=False)
    return write_from_headers(
        folder,
        kinds=kinds,
        headers=read_headers(study),
        mask=mask,
        measurements=measurements,
        weights=weights,
        parameters=parameters,
        encoding=encoding,
    )


def write_from_headers(
    folder: Path,
    *,
    kinds: Collection[DicomKind | str],
    headers: Sequence[Any],
    mask: LabelMask,
    measurements: Sequence[Measurement],
    weights: Sequence[WeightsRef],
    parameters: Mapping[str, Any],
    encoding: SegEncoding = SegEncoding.BINARY,
    created: datetime | None = None,
) -> Written:
    """Write the objects of one series; each appears complete, read back and compared, or not at all.

    Parameters
    ----------
    kinds
        A report refers to the segments it measures, so ``dicom-sr`` brings ``seg.dcm`` with it.
    headers
        pydicom data sets in order of position, as ``io.dicom.read.read_headers`` gives them.
    mask
        On the source's grid.
    measurements
        Of the mask's labels; each says which of the weights made it.
    weights
        All that made the mask.
    parameters
        The run's settings; those that shape the mask are part of the derived UIDs, see :data:`NOT_SHAPING`.

    Raises
    ------
    OutputError
        If an object cannot be written or does not read back.
    UsageError
        If highdicom is not installed.
    """
    wanted = {DicomKind(kind) for kind in kinds}
    try:
        source = DicomSource.of(headers)
    except InputError as error:
        return Written((), (Warned(error.code, f"{error.message}: {_INSTEAD}"),), is_complete=False)
    shaping = {name: value for name, value in parameters.items() if name not in NOT_SHAPING}
    result = DicomResult(mask, source, tuple(weights), shaping, tuple(measurements), created or datetime.now())
    files, seg = [], None
    if result.present and wanted & {DicomKind.SEG, DicomKind.SR}:
        seg = write_seg(folder / "seg.dcm", result, encoding=encoding)
        files.append("seg.dcm")
    if DicomKind.SR in wanted:
        write_sr(folder / "sr.dcm", result, seg=seg)
        files.append("sr.dcm")
    if result.present and DicomKind.RTSTRUCT in wanted:
        write_rtstruct(folder / "rtstruct.dcm", result)
        files.append("rtstruct.dcm")
    return Written(tuple(files), tuple(_warnings(result)), is_complete=not result.uncoded)


def _warnings(result: DicomResult) -> Iterator[Warned]:
    if result.uncoded:
        names = ", ".join(result.uncoded)
        yield Warned(
            Code.NOT_CODED, f"no DICOM code is known for {names}: left out of the DICOM objects, its mask is a NIfTI file"
        )
    if not result.present:
        yield Warned(Code.NO_ORGAN, "no organ is present: there is nothing for seg.dcm or rtstruct.dcm to hold")
