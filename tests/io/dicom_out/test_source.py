"""What results carry of the patient: names in their own letters, identifiers whole, and a warning where that cannot be."""

from __future__ import annotations

import io

import pydicom
import pytest

from agseg.errors import Code
from agseg.io.dicom_out.result import DicomResult
from agseg.io.dicom_out.source import DicomSource
from agseg.io.dicom_out.write import DICOM_KINDS, write_from_headers
from tests.io.ct_series import WEIGHTS, make_mask, make_series
from tests.io.dicom_out.test_many_organs import measured

NAME = "测试^甲"


def read(*, charset: str | list[str] | None, name: bytes, **tags) -> list[pydicom.Dataset]:
    """Headers as a reader finds them: the bytes of the name, whatever the character set claims."""
    headers: list[pydicom.Dataset] = []
    for header in make_series().headers:
        header.PatientName = "N" * len(name)
        header.StudyDescription = "S" * len(name)
        header.SpecificCharacterSet = charset or "ISO_IR 6"
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        if charset is None:
            del header.SpecificCharacterSet
        buffer = io.BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        raw = buffer.getvalue().replace(b"N" * len(name), name).replace(b"S" * len(name), name)
        headers.append(pydicom.dcmread(io.BytesIO(raw), stop_before_pixels=True))
    return headers


def carried(source: DicomSource, keyword: str = "PatientName") -> str:
    """The attribute as the next reader sees it."""
    out = pydicom.Dataset()
    out.file_meta = pydicom.dataset.FileMetaDataset()
    out.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID, out.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.4"
    for key in ("SpecificCharacterSet", "PatientName", "StudyDescription", "PatientID", "AccessionNumber", "StudyID"):
        if key in source.first:
            out.add(source.first[key])
    buffer = io.BytesIO()
    out.save_as(buffer, enforce_file_format=True)
    back = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    return str(back.get(keyword, ""))


@pytest.mark.slow
@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription"])
@pytest.mark.parametrize(
    ("charset", "encoding", "name", "is_odd"),
    [
        ("ISO_IR 192", "utf-8", NAME, False),
        ("ISO IR 192", "utf-8", NAME, True),
        ("ISO-IR 192", "utf-8", NAME, True),
        ("iso_ir_192", "utf-8", NAME, True),
        ("UTF-8", "utf-8", NAME, True),
        ("ISO_IR 100", "latin-1", "Größe^Ünal", False),
        ("ISO IR 100", "latin-1", "Größe^Ünal", True),
        ("ISO_IR_144", "iso8859-5", "Люкceмбypг", True),
        ("WINDOWS-1251", "cp1251", "Люкceмбypг", True),
        ("ISO 2022-IR 149", "euc_kr", "Hong^Gildong", False),
        ("GB18030", "gb18030", NAME, False),
        (None, "utf-8", NAME, True),
        (None, "ascii", "DOE^JOHN", False),
    ],
)
def test_names_are_as_they_were_written(charset, encoding, name, is_odd, keyword):
    source = DicomSource.of(read(charset=charset, name=name.encode(encoding)))
    assert carried(source, keyword) == name
    assert [warned.code for warned in source.warnings] == [Code.CHARACTER_SET] * is_odd


@pytest.mark.parametrize("charset", ["ISO_IR 999", "KLINGON", "ISO_IR 192"])
def test_what_cannot_be_known_becomes_question_marks_and_a_warning(charset):
    source = DicomSource.of(read(charset=charset, name=b"M\xfcLLER^Z\xff"))
    assert carried(source) == "M?LLER^Z?"
    assert [warned.code for warned in source.warnings] == [Code.CHARACTER_SET]
    assert "LLER" not in source.warnings[0].message


@pytest.mark.parametrize(
    ("keyword", "length"), [("PatientID", 65), ("PatientID", 80), ("AccessionNumber", 30), ("StudyID", 17)]
)
def test_long_identifiers_are_carried_with_a_warning(keyword, length):
    value = "ID-7-" + "X" * (length - 5)
    source = DicomSource.of(read(charset="ISO_IR 192", name=b"A^B", **{keyword: value}))
    assert carried(source, keyword) == value
    assert [warned.code for warned in source.warnings] == [Code.LONG_VALUE]
    assert keyword in source.warnings[0].message
    assert value not in source.warnings[0].message


def test_two_passes_of_one_series_with_the_same_mask_give_two_results():
    series = make_series()
    mask, first = make_mask(series.grid), DicomSource.of(series.headers)
    for number, header in enumerate(series.headers):
        header.SOPInstanceUID = f"1.2.3.{number + 1}"
    results = [DicomResult(mask, source, WEIGHTS, {}) for source in (first, DicomSource.of(series.headers), first)]
    uids = [result.identity.uid("sr") for result in results]
    assert uids[0] != uids[1]
    assert uids[0] == uids[2]


ODD = [
    ("ISO IR 192", "utf-8", NAME),
    ("iso_ir_100", "latin-1", "Größe^Ünal"),
    (["", "ISO 2022 IR 87"], "iso2022_jp", "山田^太郎"),
    (["ISO 2022 IR 6", "ISO 2022 IR 149"], "iso2022_kr_dicom", "김^희중"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("charset", "encoding", "name"), ODD)
def test_every_object_has_the_name_in_its_own_letters(tmp_path, charset, encoding, name):
    if encoding == "iso2022_kr_dicom":  # as PS3.5 H.3 has it: the escape before each group
        raw = b"^".join(b"\x1b$)C" + part.encode("euc_kr") for part in name.split("^"))
    else:
        raw = name.encode(encoding)
    series = make_series()
    headers = read(charset=charset, name=raw)
    written = write_from_headers(
        tmp_path,
        kinds=DICOM_KINDS,
        headers=headers,
        mask=make_mask(series.grid),
        weights=WEIGHTS,
        parameters={},
        measurements=measured(make_mask(series.grid)),
    )
    assert set(written.files) == {"seg.dcm", "sr.dcm", "rtstruct.dcm"}
    for file in written.files:
        back = pydicom.dcmread(tmp_path / file)
        assert str(back.PatientName) == name, file
