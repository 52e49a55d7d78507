"""Segmentation objects: one segment per organ, on the frames of the source.

BINARY is what archives and viewers know; FRACTIONAL and LABELMAP are written when asked for. Organs that are absent have no
segment: an empty one cannot be told from a failure, and the report (``sr``) says that they were looked for.
Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import OutputError
from agseg.extras import require
from agseg.grid import Grid
from agseg.io.dicom_out.codes import ANATOMICAL_STRUCTURE, code_item, coded
from agseg.io.dicom_out.frames import functional_group, map_frames, planes_of
from agseg.io.dicom_out.result import MANUFACTURER, MODEL_NAME, SHORT_DISCLAIMER, DicomResult, saved
from agseg.io.outputs import SegEncoding
from agseg.labels import Label

_SHARED_GROUPS, _PIXEL_MEASURES, _THICKNESS, _SPACING = 0x52009229, 0x00289110, 0x00180050, 0x00180088


FRAMES_PER_OBJECT = 400
"""Organs share an object up to this many frames: some viewers open no more of them."""


def write_segs(path: Path, result: DicomResult, *, encoding: SegEncoding = SegEncoding.BINARY) -> dict[str, Any]:
    """Write the segments as one object, or as several of one series where there are too many frames for one.

    Returns
    -------
    dict
        File names below the path's folder (``seg.dcm``, ``seg-2.dcm``, ...) to data sets.
    """
    written = {}
    for number, labels in enumerate(_grouped(result, encoding), start=1):
        file = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        written[file.name] = write_seg(file, result, encoding=encoding, labels=labels, number=number)
    return written


def _grouped(result: DicomResult, encoding: SegEncoding) -> list[tuple[Label, ...]]:
    """The labels that are present, in order, in groups of at most :data:`FRAMES_PER_OBJECT` frames.

    A label with more frames than that has an object of its own.
    """
    if encoding is SegEncoding.LABELMAP:
        return [result.present]
    groups: list[list[Label]] = []
    frames = FRAMES_PER_OBJECT
    for label in result.present:
        own = result.frames_of(label)
        if not groups or frames + own > FRAMES_PER_OBJECT:
            groups.append([])
            frames = 0
        groups[-1].append(label)
        frames += own
    return [tuple(group) for group in groups]


def write_seg(
    path: Path,
    result: DicomResult,
    *,
    encoding: SegEncoding = SegEncoding.BINARY,
    labels: tuple[Label, ...] | None = None,
    number: int = 1,
) -> Any:
    """Write one segmentation object, read back and compared before it appears; returns its data set.

    Parameters
    ----------
    labels
        Which of the labels that are present; all by default.
    number
        Of the object in its series, from 1.

    Raises
    ------
    OutputError
        If it cannot be built or does not read back as the mask.
    UsageError
        If highdicom is not installed.
    """
    held = result.present if labels is None else labels
    dataset = build_seg(result, encoding=encoding, labels=held, number=number)

    def check(temporary: Path) -> None:
        if not np.array_equal(read_seg(temporary, result.mask.grid), result.coded_labels(held)):
            raise OutputError("the DICOM segmentation does not read back as the mask", path=path)

    saved(dataset, path, check=check)
    return dataset


def build_seg(
    result: DicomResult, *, encoding: SegEncoding = SegEncoding.BINARY, labels: tuple[Label, ...] | None = None, number: int = 1
) -> Any:
    """The segmentation object as a highdicom data set; segments are numbered in the order of ``labels``."""
    held = result.present if labels is None else labels
    if not held:
        raise OutputError("no organ is present: a segmentation object needs a segment")
    hd = require("highdicom", purpose="a DICOM segmentation")
    frames = result.frame_map.to_frames(result.coded_labels(held))
    kind = encoding.value.upper()
    part = () if number == 1 else (str(number),)
    with result.building("segmentation"):
        headers, measures = _measured_headers(hd, result)
        dataset = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=frames,
            segmentation_type=kind,
            fractional_type="OCCUPANCY",
            segment_descriptions=[_segment(hd, result, label, n) for n, label in enumerate(held, start=1)],
            series_instance_uid=result.identity.uid("seg", kind, "series"),
            series_number=result.series_number("seg"),
            sop_instance_uid=result.identity.uid("seg", kind, *part),
            instance_number=number,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=result.software_versions,
            device_serial_number=result.device_serial_number,
            content_description=SHORT_DISCLAIMER,
            content_label="ORGANS",
            series_description=result.series_description("Organs"),
            pixel_measures=measures,
            content_date=result.created.date(),
            content_time=result.created.time(),
            series_date=result.created.date(),
            series_time=result.created.time(),
            specific_character_set=None,
        )
        result.keep_character_set(dataset)
        return dataset


def read_seg(path: Path, grid: Grid) -> NDArray[np.uint8]:
    """Segment numbers (uint8 (i, j, k)) of a segmentation object whose frames are slices of the grid.

    A fractional value counts as inside from half its maximum on. Where segments overlap the last one stands.
    """
    import pydicom

    dataset = pydicom.dcmread(path)
    frame_map = map_frames(planes_of(dataset), grid)
    # Slices one behind the other in memory, as masks lie.
    labels = np.zeros(grid.shape, dtype=np.uint8, order="F")
    kind = SegEncoding(str(dataset.SegmentationType).lower())
    threshold = int(dataset.MaximumFractionalValue) / 2 if kind is SegEncoding.FRACTIONAL else 0.5
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        pixels = _frame(dataset, number)
        if kind is SegEncoding.LABELMAP:
            for segment in np.unique(pixels[pixels > 0]):
                frame_map.place(pixels == segment, number, labels, int(segment))
        else:
            segment = int(functional_group(dataset, groups, "SegmentIdentification").ReferencedSegmentNumber)
            frame_map.place(pixels >= threshold, number, labels, segment)
    return labels


def _frame(dataset: Any, number: int) -> NDArray[np.uint8]:
    """uint8 [row, column] of one frame: all of them unpacked at once would take bytes where the file has bits."""
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    if bits not in (1, 8) or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise OutputError("the segmentation is not stored as agseg stores it", value=f"{bits} bits")
    start = number * rows * columns * bits
    stop = start + rows * columns * bits
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)[start // 8 : -(-stop // 8)]
    # Frames of a bit per pixel follow each other without padding, least significant bit first (PS3.5 8.1.1).
    pixels = packed if bits == 8 else np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + rows * columns]
    return pixels.reshape(rows, columns)


def _segment(hd: Any, result: DicomResult, label: Label, number: int) -> Any:
    from pydicom.sr.codedict import codes

    structure = label.structure
    assert structure is not None  # result.present holds coded labels only
    weights = result.made_by(label.name)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name,
        segmented_property_category=coded(ANATOMICAL_STRUCTURE),
        segmented_property_type=coded(structure.code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=weights.id[:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=result.version,
            source=MANUFACTURER,
            parameters={"architecture": weights.architecture, "weights_sha256": weights.sha256},
        ),
        tracking_id=label.name,
        tracking_uid=result.tracking_uid(label.name),
        anatomic_regions=None if structure.region is None else [coded(structure.region)],
        display_color=hd.color.CIELabColor.from_rgb(*label.rgb),
    )
    if structure.laterality is not None:
        # highdicom has no argument for the modifier; it belongs into the item of the property type, or of the region.
        side = [code_item(structure.laterality)]
        if structure.region is None:
            segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = side
        else:
            segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = side
    return segment


def _measured_headers(hd: Any, result: DicomResult) -> tuple[list[Any], Any]:
    """The source's headers with pixel measures that are true, and these measures: highdicom takes them from the headers.

    The spacing between slices comes from their positions (headers leave it out or make it negative); SliceThickness is the
    source's where it says one.
    """
    from pydicom import DataElement, Dataset

    plane, first = result.source.planes[0], result.source.first
    assert plane.pixel_spacing_mm is not None
    distance_mm = round(result.slice_distance_mm, 6)
    thickness_mm = float(first.get("SliceThickness") or 0)
    measures = hd.PixelMeasuresSequence(
        pixel_spacing=list(plane.pixel_spacing_mm),
        slice_thickness=thickness_mm if thickness_mm > 0 else distance_mm,
        spacing_between_slices=distance_mm,
    )
    headers = []
    for header in result.source.headers:
        measured = Dataset()
        measured.update(dict(header.items()))
        if "PerFrameFunctionalGroupsSequence" in header:
            shared = Dataset()
            shared.update(dict(header.SharedFunctionalGroupsSequence[0].items()))
            shared[_PIXEL_MEASURES] = DataElement(_PIXEL_MEASURES, "SQ", measures)
            measured[_SHARED_GROUPS] = DataElement(_SHARED_GROUPS, "SQ", [shared])
        else:
            measured[_THICKNESS] = DataElement(_THICKNESS, "DS", measures[0].SliceThickness)
            measured[_SPACING] = DataElement(_SPACING, "DS", measures[0].SpacingBetweenSlices)
        headers.append(measured)
    return headers, measures
