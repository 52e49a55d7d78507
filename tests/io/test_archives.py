"""Archives are looked into: one that holds images is a study that nobody gets a mask for."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from agseg.errors import Code
from agseg.io import archives
from agseg.io.archives import look_into
from agseg.io.discover import discover

DICOM = bytes(128) + b"DICM" + bytes(64)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def link_to(path: Path, target: str) -> Path:
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
        entry = tarfile.TarInfo("a.dcm")
        archive.addfile(entry)
    return path


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"study/IM0001.dcm": b"x"}, Code.UNSUPPORTED_INPUT),
        ({"readme.txt": b"x", "DICOM/00000001": DICOM}, Code.UNSUPPORTED_INPUT),
        ({"readme.txt": b"x", "case.nii.gz": b"x"}, Code.UNSUPPORTED_INPUT),
        ({"DICOMDIR": b"x"}, Code.UNSUPPORTED_INPUT),
        ({"../../IM1.dcm": b"x"}, Code.UNSAFE_ARCHIVE),
        ({"/etc/IM1.dcm": b"x"}, Code.UNSAFE_ARCHIVE),
        ({"word/document.xml": b"x", "README": b"text"}, None),
        ({}, None),
    ],
)
def test_what_holds_images_is_refused_and_what_holds_none_is_left_out(
    tmp_path: Path, members: dict[str, bytes], code: Code | None
) -> None:
    made = [
        zipped(tmp_path / "a.zip", members),
        tarred(tmp_path / "a.tar", members),
        tarred(tmp_path / "a.tar.gz", members, "w:gz"),
        tarred(tmp_path / "a.tar.xz", members, "w:xz"),
    ]
    for path in made:
        found = look_into(path)
        assert (found and found.code) == code, path.name


def test_links_packed_slices_and_what_cannot_be_looked_into(tmp_path: Path) -> None:
    found = look_into(link_to(tmp_path / "l.tar", "/etc/passwd"))
    assert found is not None
    assert found.code is Code.UNSAFE_ARCHIVE
    (tmp_path / "slice.gz").write_bytes(gzip.compress(DICOM))
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"a log"))
    (tmp_path / "cut.zip").write_bytes(zipped(tmp_path / "whole.zip", {"a.dcm": DICOM}).read_bytes()[:-30])
    (tmp_path / "seven.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(64))
    judged = {path.name: look_into(path) for path in tmp_path.iterdir()}
    assert {name for name, why in judged.items() if why is None} == {"log.gz"}


def test_a_study_in_an_archive_is_a_study_with_the_archives_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    zipped(tmp_path / "in" / "patient7.zip", {"IM1.dcm": DICOM})
    zipped(tmp_path / "in" / "letters.zip", {"a.txt": b"x"})
    found = discover([tmp_path / "in"])
    assert [(study.id, study.rejected and study.rejected.code) for study in found.studies] == [
        ("patient7.zip", Code.UNSUPPORTED_INPUT)
    ]
    assert [(skip.path.name, skip.reason) for skip in found.skipped] == [("letters.zip", Code.UNSUPPORTED_INPUT)]


def test_a_long_tar_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 1 << 16)
    path = tarred(tmp_path / "long.tar", {"noise.txt": random.Random(1).randbytes(1 << 17), "a.dcm": DICOM})
    # What lies behind the bound is not seen; the archive is then one that cannot be looked into.
    found = look_into(path)
    assert found is None or found.code is Code.UNSUPPORTED_INPUT
