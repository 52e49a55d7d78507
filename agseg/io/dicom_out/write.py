"""One mask as the DICOM objects that were asked for: ``seg.dcm``, ``sr.dcm``, ``rtstruct.dcm``.

This is what the segment workflow calls. A source without the UIDs that results must refer to gives no objects and a warning;
the masks and the report are written all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.dicom.read import read_headers
from agseg.io.dicom_out.result import DicomResult
from agseg.io.dicom_out.rtstruct import write_rtstruct
from agseg.io.dicom_out.seg import write_segs
from agseg.io.dicom_out.source import DicomSource
from agseg.io.dicom_out.sr import write_sr
from agseg.io.outputs import SEG_FILE, OutputType, SegEncoding, Written
from agseg.report import Measurement, WeightsRef
from agseg.study import Study, StudyKind
from agseg.volume import LabelMask, Warned

DICOM_KINDS = (OutputType.DICOM_SEG, OutputType.DICOM_SR, OutputType.RTSTRUCT)

_INSTEAD = "no DICOM objects are written, the masks are NIfTI files"


class DicomObjects:
    """The objects of one result, written one by one into one folder; a report refers to the segments it measures.

    Parameters
    ----------
    result
        What they hold; None where nothing can be written, and ``why`` says why.
    encoding
        How segments are stored.
    """

    def __init__(
        self, result: DicomResult | None, *, why: Warned | None = None, encoding: SegEncoding = SegEncoding.BINARY
    ) -> None:
        self.result, self.why, self.encoding = result, why, encoding
        self._segs: dict[str, Any] = {}

    @classmethod
    def of_study(
        cls,
        study: Study,
        mask: LabelMask,
        *,
        measurements: Sequence[Measurement],
        weights: Sequence[WeightsRef],
        parameters: Mapping[str, Any],
        encoding: SegEncoding = SegEncoding.BINARY,
    ) -> DicomObjects:
        """Of a study whose files are read again for their headers; see :meth:`of_headers`.

        A study that is no DICOM series has nothing that an object could refer to.
        """
        if study.kind != StudyKind.DICOM:
            return cls(None, why=Warned(Code.MISSING_UIDS, f"the input is not DICOM: {_INSTEAD}"))
        headers = read_headers(study)
        return cls.of_headers(
            headers, mask, measurements=measurements, weights=weights, parameters=parameters, encoding=encoding
        )

    @classmethod
    def of_headers(
        cls,
        headers: Sequence[Any],
        mask: LabelMask,
        *,
        measurements: Sequence[Measurement],
        weights: Sequence[WeightsRef],
        parameters: Mapping[str, Any],
        encoding: SegEncoding = SegEncoding.BINARY,
        created: datetime | None = None,
    ) -> DicomObjects:
        """Of one series.

        Parameters
        ----------
        headers
            pydicom data sets in order of position, as ``io.dicom.read.read_headers`` gives them. Where they lack the UIDs that
            results refer to, there are no objects, and ``why`` says so.
        mask
            On the source's grid.
        measurements
            Of the mask's labels; each says which of the weights made it.
        weights
            All that made the mask.
        parameters
            The settings that shaped the mask; part of the derived UIDs.
        """
        try:
            source = DicomSource.of(headers)
        except InputError as error:
            return cls(None, why=Warned(error.code, f"{error.message}: {_INSTEAD}"))
        result = DicomResult(mask, source, tuple(weights), parameters, tuple(measurements), created or datetime.now())
        return cls(result, encoding=encoding)

    def write(self, kind: OutputType, folder: Path) -> Written:
        """Write one object; it appears complete, read back and compared, or not at all.

        ``dicom-sr`` brings ``seg.dcm`` with it, unless no organ is present. Many organs on many slices become several
        segmentations of one series: ``seg.dcm``, ``seg-2.dcm``, ...

        Raises
        ------
        OutputError
            If the object cannot be written or does not read back.
        UsageError
            If highdicom is not installed.
        """
        result = self.result
        if result is None:
            return Written(warnings=() if self.why is None else (self.why,), is_complete=False)
        files: list[str] = []
        if result.present and kind in (OutputType.DICOM_SEG, OutputType.DICOM_SR):
            if not self._segs:
                self._segs = write_segs(folder / SEG_FILE, result, encoding=self.encoding)
            files.extend(self._segs)
        if kind is OutputType.DICOM_SR:
            write_sr(folder / "sr.dcm", result, segs=tuple(self._segs.values()))
            files.append("sr.dcm")
        if result.present and kind is OutputType.RTSTRUCT:
            write_rtstruct(folder / "rtstruct.dcm", result)
            files.append("rtstruct.dcm")
        return Written(tuple(files), tuple(_warnings(result)), is_complete=not result.uncoded)


def write_from_headers(
    folder: Path, *, kinds: Collection[OutputType], headers: Sequence[Any], mask: LabelMask, **facts: Any
) -> Written:
    """Several objects of one series at once; see :class:`DicomObjects`."""
    objects = DicomObjects.of_headers(headers, mask, **facts)
    written = [objects.write(kind, folder) for kind in DICOM_KINDS if kind in kinds]
    return Written(
        tuple(dict.fromkeys(name for one in written for name in one.files)),
        tuple(dict.fromkeys(warned for one in written for warned in one.warnings)),
        all(one.is_complete for one in written),
    )


def _warnings(result: DicomResult) -> Iterator[Warned]:
    yield from result.source.warnings
    if result.uncoded:
        names = ", ".join(result.uncoded)
        yield Warned(
            Code.NOT_CODED, f"no DICOM code is known for {names}: left out of the DICOM objects, its mask is a NIfTI file"
        )
    if not result.present:
        yield Warned(Code.NO_ORGAN, "no organ is present: there is nothing for seg.dcm or rtstruct.dcm to hold")
