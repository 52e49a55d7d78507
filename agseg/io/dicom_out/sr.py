"""Structured report: a TID 1500 measurement report with the volume of every organ.

It is COMPLETE, UNVERIFIED and PRELIMINARY: nobody has reviewed it. An organ that was looked for and not found has a group of
its own that says "Absent" and no volume; one that the field of view cuts says so beside the volume of the part inside.
Source: DICOM PS3.16 TID 1500, 1411, 1501; PS3.3 A.35.13.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agseg.errors import OutputError
from agseg.extras import require
from agseg.io.dicom_out.codes import ANATOMICAL_STRUCTURE, coded
from agseg.io.dicom_out.result import MANUFACTURER, MODEL_NAME, DicomResult, saved
from agseg.labels import Code3, Label
from agseg.report import DISCLAIMER, Measurement, OrganStatus

OWN_SCHEME = "99AGSEG"
"""Designator of concepts that DICOM has no code for; 99 marks a private scheme (PS3.16, section 8)."""

ORGAN_STATUS = Code3("organ_status", "Organ status", OWN_SCHEME)
STATUS_CODES = {
    OrganStatus.PRESENT: Code3("52101004", "Present"),
    OrganStatus.ABSENT: Code3("2667000", "Absent"),
    OrganStatus.CUT_OFF: Code3("cut_off", "Cut off by the field of view", OWN_SCHEME),
}
"""What is known about an organ; DICOM has no code for an organ that the field of view cuts, so that one is our own."""

_VOLUME = ("118565006", "SCT")
_TRACKING_UID = "112040"


def write_sr(path: Path, result: DicomResult, *, segs: Sequence[Any] = ()) -> Any:
    """Write the report, read back and compared before it appears; returns its data set.

    Parameters
    ----------
    segs
        The segmentation objects it measures; none where no organ is present.

    Raises
    ------
    OutputError
        If it cannot be built or its volumes do not read back.
    UsageError
        If highdicom is not installed.
    """
    dataset = build_sr(result, segs=segs)
    expected = {result.tracking_uid(m.name): sensible(m.volume_ml) for m in _reported(result) if m.volume_ml is not None}

    def check(temporary: Path) -> None:
        if read_sr_volumes(temporary) != expected:
            raise OutputError("the DICOM report does not read back with the measured volumes", path=path)

    saved(dataset, path, check=check)
    return dataset


def build_sr(result: DicomResult, *, segs: Sequence[Any] = ()) -> Any:
    """The report as a highdicom data set."""
    require("highdicom.coding_schemes", purpose="a DICOM report")
    hd = require("highdicom", purpose="a DICOM report")
    from pydicom.sr.codedict import codes

    # The same volumes measured on another encoding of the segments are another report.
    segments = "\n".join(str(seg.SOPInstanceUID) for seg in segs)
    # So are other measurements or reasons on the same segments.
    said = json.dumps([(m.name, m.status, m.volume_ml, m.mean_hu, m.review) for m in _reported(result)])
    seg_uid = f"{segments}\n{hashlib.sha256(said.encode()).hexdigest()}"
    places = {str(s.SegmentLabel): (seg, int(s.SegmentNumber)) for seg in segs for s in seg.SegmentSequence}
    with result.building("report"):
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=_observer(hd, result)),
            procedure_reported=_procedure(result),
            imaging_measurements=[_group(hd, result, measurement, places) for measurement in _reported(result)],
            title=codes.DCM.ImagingMeasurementReport,
        )
        report[0].ContentSequence.append(
            hd.sr.TextContentItem(
                name=codes.DCM.Comment, value=DISCLAIMER, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
            )
        )
        for measurement in _reported(result):
            if measurement.review:
                title = result.mask.label_set[measurement.name].title
                report[0].ContentSequence.append(
                    hd.sr.TextContentItem(
                        name=codes.DCM.Comment,
                        value=f"Look twice at the {title}: {'; '.join(measurement.review)}"[:1024],
                        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
                    )
                )
        dataset = hd.sr.Comprehensive3DSR(
            evidence=[*result.source.headers, *segs],
            content=report[0],
            series_instance_uid=result.identity.uid("sr", "series", seg_uid),
            series_number=result.series_number("sr"),
            sop_instance_uid=result.identity.uid("sr", seg_uid),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_verified=False,
            is_final=False,
            manufacturer_model_name=MODEL_NAME,
            software_versions=result.software_versions,
            device_serial_number=result.device_serial_number,
            coding_schemes=[
                hd.coding_schemes.CodingSchemeIdentificationItem(
                    OWN_SCHEME, name="agseg concepts", version=result.version, responsible_organization="agseg"
                )
            ],
            series_description=result.series_description("Organ volumes"),
            content_date=result.created.date(),
            content_time=result.created.time(),
            series_date=result.created.date(),
            series_time=result.created.time(),
            specific_character_set=None,
        )
        result.keep_character_set(dataset)
        return dataset


def sensible(volume_ml: float) -> float:
    """A volume with the six digits that a report states; a mask knows no more."""
    return float(f"{volume_ml:.6g}")


def read_sr_volumes(path: Path) -> dict[str, float]:
    """Volume (cm3, which is ml) of each TrackingUID in a report."""
    import pydicom

    volumes: dict[str, float] = {}
    groups = [pydicom.dcmread(path)]
    while groups:
        tracking_uid, volume_ml = None, None
        for item in groups.pop().get("ContentSequence", []):
            name = item.ConceptNameCodeSequence[0] if item.get("ConceptNameCodeSequence") else None
            if item.ValueType == "CONTAINER":
                groups.append(item)
            elif item.ValueType == "UIDREF" and name is not None and name.CodeValue == _TRACKING_UID:
                tracking_uid = str(item.UID)
            elif item.ValueType == "NUM" and name is not None and (name.CodeValue, name.CodingSchemeDesignator) == _VOLUME:
                measured = item.MeasuredValueSequence[0]
                volume_ml = float(measured.get("FloatingPointValue", measured.NumericValue))
        if tracking_uid is not None and volume_ml is not None:
            volumes[tracking_uid] = volume_ml
    return volumes


def _reported(result: DicomResult) -> list[Measurement]:
    """The measurements of organs that the weights know and that have a code."""
    names = {label.name for label in result.mask.label_set if label.structure is not None}
    return [m for m in result.measurements if m.name in names and m.status is not OrganStatus.NOT_IN_WEIGHTS]


def _observer(hd: Any, result: DicomResult) -> Any:
    from pydicom.sr.codedict import codes

    return hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=result.device_uid,
            name=MODEL_NAME,
            manufacturer_name=MANUFACTURER,
            model_name=result.model_name,
            serial_number=result.device_serial_number,
        ),
    )


def _procedure(result: DicomResult) -> Any:
    """What was examined, as far as the source's modality says it."""
    from pydicom.sr.codedict import codes

    return codes.LN.MRIUnspecifiedBodyRegion if result.source.modality == "MR" else codes.LN.CTUnspecifiedBodyRegion


def _group(hd: Any, result: DicomResult, measurement: Measurement, places: Mapping[str, tuple[Any, int]]) -> Any:
    """The measurement group of one organ: on its segment (TID 1411), or without a region where it is absent (TID 1501)."""
    from pydicom.sr.codedict import codes

    label = result.mask.label_set[measurement.name]
    structure = label.structure
    assert structure is not None  # _reported leaves the others out
    status = STATUS_CODES[measurement.status]
    weights = result.made_by(label.name)
    facts = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=result.tracking_uid(label.name), identifier=label.name),
        "finding_category": coded(ANATOMICAL_STRUCTURE),
        "finding_type": coded(structure.code),
        "finding_sites": [
            hd.sr.FindingSite(
                coded(structure.region or structure.code),
                laterality=None if structure.laterality is None else coded(structure.laterality),
            )
        ],
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=weights.id,
            version=result.version,
            parameters=[f"weights sha256 {weights.sha256}"],
        ),
        "qualitative_evaluations": [hd.sr.QualitativeEvaluation(coded(ORGAN_STATUS), coded(status))],
    }
    if measurement.status is OrganStatus.ABSENT:
        return hd.sr.MeasurementsAndQualitativeEvaluations(**facts)
    measurements = [
        hd.sr.Measurement(name=codes.SCT.Volume, value=sensible(measurement.volume_ml or 0.0), unit=codes.UCUM.CubicCentimeter)
    ]
    if measurement.mean_hu is not None:
        measurements.append(
            hd.sr.Measurement(
                name=codes.DCM.AttenuationCoefficient,
                value=round(measurement.mean_hu, 1),
                unit=codes.UCUM.HounsfieldUnit,
                derivation=codes.SCT.Mean,
            )
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=_referenced_segment(hd, result, label, places), measurements=measurements, **facts
    )


def _referenced_segment(hd: Any, result: DicomResult, label: Label, places: Mapping[str, tuple[Any, int]]) -> Any:
    if label.name not in places:
        raise OutputError(f"the report measures {label.name}, but no segment holds it")
    seg, number = places[label.name]
    return hd.sr.ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=number,
        source_series=hd.sr.SourceSeriesForSegmentation(result.source.series_uid),
    )
