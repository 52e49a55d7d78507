"""Whose a file is: told from the front of its header, and never at the price of what discovery has refused."""

import struct

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from agseg.io.dicom import elements, identifiers
from agseg.io.dicom.identifiers import read_identifiers
from tests import phantoms

NAMED = {"PatientName": "Müller^Zoë", "PatientID": "17", "StudyDate": "20240131", "SeriesNumber": "4"}


def slice_of(folder, change=None):
    def named(dataset, number):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for name, value in NAMED.items():
            setattr(dataset, name, value)
        if change is not None:
            change(dataset)

    return phantoms.write_dicom(folder, np.zeros((8, 8, 1), dtype=np.int16), np.eye(4), change=named)[0]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_they_are_those_of_the_header(tmp_path, syntax):
    path = slice_of(tmp_path)
    whole = pydicom.dcmread(path)
    whole.file_meta.TransferSyntaxUID = syntax
    whole.save_as(path)
    told = read_identifiers(path)
    assert {name: told[name] for name in NAMED} == NAMED
    assert (told["StudyInstanceUID"], told["SeriesInstanceUID"]) == (whole.StudyInstanceUID, whole.SeriesInstanceUID)


def test_plain_ones_need_no_pydicom(tmp_path, monkeypatch):
    path = slice_of(tmp_path, lambda dataset: setattr(dataset, "PatientName", "Doe^John"))
    expected = read_identifiers(path)
    monkeypatch.setattr(identifiers, "_by_pydicom", None)
    assert read_identifiers(path) == expected
    assert expected["PatientName"] == "Doe^John"


def test_what_lies_behind_them_is_not_read(tmp_path):
    path = slice_of(tmp_path)
    whole = pydicom.dcmread(path)
    content = path.read_bytes()
    behind = content.index(b"\x20\x00\x32\x00DS")  # ImagePositionPatient
    path.write_bytes(content[:behind] + b"\x20\x00\x32\x00\xff\xff\xff\xff\xff\xff")
    assert read_identifiers(path)["SeriesInstanceUID"] == whole.SeriesInstanceUID


def test_a_header_of_too_many_items_is_not_opened_for_them(tmp_path, monkeypatch):
    def referring(dataset):
        dataset.ReferencedImageSequence = Sequence([pydicom.Dataset() for _ in range(5)])
        dataset["ReferencedImageSequence"].is_undefined_length = True  # its items must be walked through

    path = slice_of(tmp_path, referring)
    assert read_identifiers(path)["PatientID"] == "17"
    monkeypatch.setattr(elements, "MOST_ITEMS", 4)
    opened = []
    monkeypatch.setattr(identifiers, "open_regular", lambda path: opened.append(path))
    assert read_identifiers(path) == {}
    assert opened == []


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "PatientID": st.text(max_size=12),
            "PatientName": st.text("AZaz^=,. -", max_size=12),
            "AccessionNumber": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
            "SeriesDescription": st.text("abd +\\~1.5", max_size=12),
            "StudyDate": st.sampled_from(["20240131", "2024.01.31", " 20240131", "x"]),
            "SeriesNumber": st.sampled_from(["4", "04", "+4", "-4", " 4", "4.0", "1e2"]),
        },
    ),
    st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "ISO_IR 13"]),
    st.booleans(),
)
def test_they_are_pydicoms_whether_or_not_they_are_plain(tmp_path_factory, values, characters, implicit):
    path = tmp_path_factory.getbasetemp() / "identified.dcm"
    encoding = {"ISO_IR 192": "utf-8", "ISO_IR 13": "shift_jis"}.get(characters, "latin-1")
    texts = {"SpecificCharacterSet": characters, "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"} | values
    body = b"".join(
        element(name, text.encode(encoding, "replace"), implicit=implicit)
        for name, text in sorted(texts.items(), key=lambda item: tag_for_keyword(item[0]))
    )
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta = element("TransferSyntaxUID", str(syntax).encode(), implicit=False)
    path.write_bytes(bytes(128) + b"DICM" + meta + body)
    assert read_identifiers(path) == identifiers._by_pydicom(path)


def element(name, value, *, implicit):
    """A text element as its bytes lie in a file."""
    tag, vr = tag_for_keyword(name), dictionary_VR(name)
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    length = struct.pack("<I", len(value)) if implicit else vr.encode() + struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + length + value
