"""What a workstation shows that knows neither SEG nor SR: key images as secondary captures, and a report as encapsulated PDF.

``sc.dcm`` holds the preview, ``sc-2.dcm`` the mosaic of a study, one series; ``report.dcm`` a PDF with the table of volumes
and both pictures. They show what was found and are no source of numbers: SEG and SR are. The PDF's pages are pictures, so that
it looks alike everywhere. Source: DICOM PS3.3 A.8.1 (Secondary Capture Image), A.45.1 (Encapsulated PDF).
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agseg.errors import OutputError
from agseg.io.dicom_out.result import MANUFACTURER, MODEL_NAME, SHORT_DISCLAIMER, DicomResult, saved
from agseg.io.dicom_out.source import CARRIED, OPTIONAL
from agseg.report import DISCLAIMER

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"

PDF_FILE = "report.dcm"

_DPI = 100.0
_PAGE_PX = (1169, 826)
"""A4 landscape at 100 dpi."""


def write_sc(folder: Path, result: DicomResult, pictures: Sequence[Image]) -> tuple[str, ...]:
    """A secondary capture per picture, in one series; returns the names.

    Raises
    ------
    OutputError
        If one cannot be written or does not read back.
    """
    names = []
    for number, picture in enumerate(pictures, start=1):
        name = "sc.dcm" if number == 1 else f"sc-{number}.dcm"
        dataset = build_sc(result, picture, number=number)
        saved(dataset, folder / name, check=lambda path, wanted=dataset: _check_pixels(path, wanted))  # type: ignore[misc]
        names.append(name)
    return tuple(names)


def write_pdf(folder: Path, result: DicomResult, pictures: Sequence[Image]) -> tuple[str, ...]:
    """The report as an encapsulated PDF; returns its name.

    Raises
    ------
    OutputError
        If it cannot be written or does not read back.
    """
    dataset = build_pdf(result, pictures)

    def check(path: Path) -> None:
        import pydicom

        if bytes(pydicom.dcmread(path).EncapsulatedDocument) != bytes(dataset.EncapsulatedDocument):
            raise OutputError("the encapsulated PDF does not read back", path=path)

    saved(dataset, folder / PDF_FILE, check=check)
    return (PDF_FILE,)


def build_sc(result: DicomResult, picture: Image, *, number: int = 1) -> Any:
    """A secondary capture (RGB, 8 bits) as a pydicom data set."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    with result.building("secondary capture"):
        dataset = _base(result, SECONDARY_CAPTURE, role="sc", content=digest, number=number)
        dataset.Modality = "OT"
        dataset.SeriesDescription = result.series_description("Key images")
        dataset.ConversionType = "WSD"
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        dataset.DerivationDescription = f"agseg {result.version}, {result.model_name}"[:1024]
        dataset.ImageComments = DISCLAIMER
        dataset.BurnedInAnnotation = "NO"
        dataset.PatientOrientation = dataset.Laterality = ""
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        raw = pixels.tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB"
        return dataset


def build_pdf(result: DicomResult, pictures: Sequence[Image]) -> Any:
    """The encapsulated PDF as a pydicom data set; the same result gives the same bytes but for dates."""
    pages = [_sheet(_table(result)), *(_sheet(picture.convert("RGB")) for picture in pictures)]
    digest = hashlib.sha256(b"".join(page.tobytes() for page in pages)).hexdigest()
    with result.building("PDF"):
        dataset = _base(result, ENCAPSULATED_PDF, role="pdf", content=digest, number=1)
        dataset.Modality = "DOC"
        dataset.SeriesDescription = result.series_description("Organ volumes")
        dataset.ConversionType = "WSD"
        dataset.BurnedInAnnotation = "NO"
        dataset.DocumentTitle = f"Organ volumes. {SHORT_DISCLAIMER}"
        dataset.ConceptNameCodeSequence = []
        dataset.AcquisitionDateTime = ""
        dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
        document = _pdf(pages, result)
        dataset.EncapsulatedDocumentLength = len(document)
        dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
        return dataset


def _base(result: DicomResult, sop_class: str, *, role: str, content: str, number: int) -> Any:
    """Patient, study, series, equipment and identity; ``content`` tells objects of one result apart that show other things."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    dataset = Dataset()
    source = result.source.first
    for keyword in (*CARRIED, *(keyword for keyword in OPTIONAL if keyword in source)):
        dataset[keyword] = source[keyword]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = result.identity.uid(role, content)
    dataset.SeriesInstanceUID = result.identity.uid(role, "series")
    dataset.SeriesNumber = result.series_number(role)
    dataset.InstanceNumber = number
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = result.device_serial_number
    dataset.SoftwareVersions = result.software_versions
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.ContentDate = dataset.InstanceCreationDate = dataset.SeriesDate = result.created.strftime("%Y%m%d")
    dataset.ContentTime = dataset.InstanceCreationTime = dataset.SeriesTime = result.created.strftime("%H%M%S")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def _check_pixels(path: Path, wanted: Any) -> None:
    import pydicom

    if bytes(pydicom.dcmread(path).PixelData) != bytes(wanted.PixelData):
        raise OutputError("the secondary capture does not read back", path=path)


# -- pages ----------------------------------------------------------------------------------------------------------------


def _table(result: DicomResult) -> Image:
    """The volumes, reasons and weights as a page; nothing on it names the patient, whom the object's header names."""
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    page = PIL.Image.new("RGB", _PAGE_PX, (255, 255, 255))
    draw = ImageDraw.Draw(page)
    large, plain = (ImageFont.load_default(size) for size in (24, 16))
    y = 40
    draw.text((50, y), "Organ volumes, made by a network", fill=(0, 0, 0), font=large)
    draw.text((50, y + 40), DISCLAIMER, fill=(140, 20, 30), font=plain)
    y += 90
    for number, found in enumerate(result.measurements):
        if y > _PAGE_PX[1] - 120:
            more = f"{len(result.measurements) - number} more organs stand in the DICOM report and in volumes.csv"
            draw.text((50, y), more, fill=(0, 0, 0), font=plain)
            y += 26
            break
        volume = found.status.value.replace("_", " ") if found.volume_ml is None else f"{found.volume_ml:.1f} ml"
        cut = " (cut off by the scan's range)" if found.volume_ml is not None and found.touches_border else ""
        hu = "" if found.mean_hu is None else f"mean {found.mean_hu:.0f} HU"
        draw.text((50, y), found.name.replace("_", " "), fill=(0, 0, 0), font=plain)
        draw.text((300, y), f"{volume}{cut}", fill=(0, 0, 0), font=plain)
        draw.text((620, y), hu, fill=(0, 0, 0), font=plain)
        y += 26
        for reason in found.review:
            draw.text((300, y), f"look twice: {reason}"[:110], fill=(120, 70, 0), font=plain)
            y += 26
    weights = ", ".join(one.id for one in result.weights)
    draw.text((50, _PAGE_PX[1] - 50), f"agseg {result.version}; weights {weights}"[:130], fill=(80, 80, 80), font=plain)
    return page


def _sheet(picture: Image) -> Image:
    """The picture on a page, as large as fits."""
    import PIL.Image

    page = PIL.Image.new("RGB", _PAGE_PX, (255, 255, 255))
    scale = min(_PAGE_PX[0] / picture.width, _PAGE_PX[1] / picture.height, 1.0)
    small = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    page.paste(small, ((_PAGE_PX[0] - small.width) // 2, (_PAGE_PX[1] - small.height) // 2))
    return page


def _pdf(pages: Sequence[Image], result: DicomResult) -> bytes:
    stream = io.BytesIO()
    # Not the time of writing: a result that is made again is the same document.
    date = str(result.source.first.get("StudyDate") or "")
    made = time.strptime(date if re.fullmatch(r"(19|20)\d{6}", date) else "20000101", "%Y%m%d")
    pages[0].save(
        stream,
        format="PDF",
        save_all=True,
        append_images=list(pages[1:]),
        resolution=_DPI,
        quality=85,
        title="Organ volumes (agseg)",
        producer=f"agseg {result.version}",
        creationDate=made,
        modDate=made,
    )
    return stream.getvalue()
