"""Whose a file is: told from the front of its header, and never at the price of what discovery has refused."""

import numpy as np
import pydicom
import pytest
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
