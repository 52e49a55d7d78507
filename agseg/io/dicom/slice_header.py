"""What one DICOM file says about itself, as far as grouping, geometry and rescaling need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

UNDEFINED_LENGTH = 0xFFFFFFFF
"""Length of a sequence, item or compressed pixel element that ends with a delimiter."""

ENHANCED_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    }
)
SCAN_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
"""SOP classes whose images make volumes, and their modality."""


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """Where the pixel element lies in the file: first byte of its value, declared length, bytes that are really there."""

    offset: int
    length: int
    present: int

    @property
    def is_encapsulated(self) -> bool:
        """True for compressed pixels."""
        return self.length == UNDEFINED_LENGTH


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What one file says about itself. Missing numbers are None, missing text is empty; nothing here is validated yet.

    ``position_mm`` and ``orientation`` are in DICOM's LPS; ``pixel_spacing_mm`` is (row distance, column distance).
    ``pixels`` is None where the header was read by pydicom (then ``has_pixels`` is not known before decoding).
    """

    path: Path
    transfer_syntax: str = ""
    sop_class: str = ""
    sop_uid: str = field(default="", repr=False)
    sop_uid_recovered: bool = False
    patient_id: str = field(default="", repr=False)
    patient_name: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)
    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_description: str = field(default="", repr=False)
    derivation: str = field(default="", repr=False)
    technique: str = ""
    body_part: str = field(default="", repr=False)
    series_number: int | None = None
    acquisition_number: int | None = None
    instance_number: int | None = None
    temporal_position: int | None = None
    images_in_acquisition: int | None = None
    concatenation: str = field(default="", repr=False)
    concatenation_parts: int | None = None
    series_date: str = field(default="", repr=False)
    series_time: str = field(default="", repr=False)
    acquisition_date: str = field(default="", repr=False)
    acquisition_time: str = field(default="", repr=False)
    acquisition_datetime: str = field(default="", repr=False)
    trigger_time_ms: float | None = None
    cardiac_phase: float | None = None
    kvp: float | None = None
    echo_time_ms: float | None = None
    kernel: str = field(default="", repr=False)
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    signed: bool = False
    padding: int | None = None
    padding_limit: int | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    position_mm: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing_mm: tuple[float, ...] | None = None
    pixels: PixelSpan | None = None
    file_bytes: int = 0

    @property
    def is_enhanced(self) -> bool:
        """True if geometry and rescale stand in functional groups."""
        return self.sop_class in ENHANCED_SOP_CLASSES

    @property
    def scan(self) -> str:
        """CT or MR for an image that may be part of a volume, by its SOP class or, without one, by its Modality; else empty."""
        said = self.modality.upper()
        modality = SCAN_CLASSES.get(self.sop_class, "") if self.sop_class else said
        return modality if said in (modality, "") and modality in SCAN_CLASSES.values() else ""

    @property
    def is_localizer(self) -> bool:
        """True for a scout: ImageType says LOCALIZER."""
        return "LOCALIZER" in self.image_type
