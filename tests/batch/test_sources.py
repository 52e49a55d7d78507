"""Whose a study is: a pseudonym, a date and known words, and names only for who asks for them."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

import pytest

from agseg.batch.sources import KEY_FILE, plain_description, pseudonym, site_key, source_of
from agseg.errors import UsageError
from agseg.io.read import read_volume
from agseg.study import Source
from tests import phantoms
from tests.batch.test_run import run

KEY, OTHER = bytes(32), bytes(31) + b"\x01"
HEADERS = {
    "PatientID": "ZZPATIENTID", "PatientName": "ZZNAME^TEST", "AccessionNumber": "ZZACCESSION", "StudyDate": "20260101",
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SeriesNumber": "2",
    "SeriesDescription": "ZZNAME Abdomen ven. 5.0 B30f 19010203",
}  # fmt: skip


def test_a_patient_has_one_pseudonym_at_a_site_and_another_elsewhere() -> None:
    assert pseudonym(KEY, "17") == pseudonym(KEY, " 17 ") != pseudonym(KEY, "18")
    assert pseudonym(KEY, "17") != pseudonym(OTHER, "17")
    assert len({pseudonym(KEY, str(number)) for number in range(2000)}) == 2000


def test_a_record_says_date_series_and_known_words_and_no_more() -> None:
    source = source_of(HEADERS, key=KEY)
    assert source == Source(pseudonym(KEY, "ZZPATIENTID"), "2026-01-01", "2", "… Abdomen ven 5.0 B30f …")
    assert source_of(HEADERS, key=None).patient == ""
    assert source_of({"StudyDate": "yesterday", "SeriesNumber": "Meier"}, key=KEY) == Source()
    assert source_of(HEADERS, key=KEY, identifiers=True).identifiers == HEADERS


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Abdomen_portalvenös  1,5mm Br40d3", "Abdomen portalvenös 1,5mm Br40d3"),
        ("Thorax/Abdomen nativ", "Thorax Abdomen nativ"),
        ("Müller, Erika *12.03.1956", ""),
        ("ax liver Müller", "ax liver …"),
        ("", ""),
    ],
)
def test_descriptions_keep_the_words_of_protocols(text: str, plain: str) -> None:
    assert plain_description(text) == plain


def test_the_key_is_made_once_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    assert site_key(tmp_path / "home", make=False) is None
    assert not (tmp_path / "home").exists()
    key = site_key(tmp_path / "home")
    assert key is not None
    assert site_key(tmp_path / "home") == key
    assert stat.S_IMODE((tmp_path / "home" / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == [KEY_FILE]
    (tmp_path / "home" / KEY_FILE).write_text("")
    with pytest.raises(UsageError, match="key for pseudonyms"):
        site_key(tmp_path / "home")
    (tmp_path / "file").touch()
    assert site_key(tmp_path / "file") is None


def write_patient(folder: Path, *, series: int = 2) -> list[Path]:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))

    def described(dataset, _number):
        dataset.SeriesDescription = HEADERS["SeriesDescription"]

    return phantoms.write_dicom(
        folder, phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine, series=series, change=described
    )


@pytest.mark.slow
def test_page_and_tables_say_whose_a_result_is_and_name_patients_only_if_asked(tmp_path: Path) -> None:
    write_patient(tmp_path / "in" / "gap")[3].unlink()
    for asked in (True, False):
        run(tmp_path / "in", tmp_path / "out", include_identifiers=asked, pseudonym_key=KEY)
        page, table = ((tmp_path / "out" / name).read_text() for name in ("report.html", "volumes.csv"))
        record = json.loads((tmp_path / "out" / "run.json").read_bytes())
        for canary in ("ZZNAME", "ZZPATIENTID", "ZZACCESSION"):
            assert all((canary in text) == asked for text in (page, table, json.dumps(record))), (canary, asked)
        assert "2026-01-01" in page
        assert ("Abdomen ven. 5.0 B30f" if asked else "… Abdomen ven 5.0 B30f …") in page
        rows = list(csv.DictReader(table.splitlines()))
        assert {row["patient"] for row in rows} == {pseudonym(KEY, "ZZPATIENTID")}
        assert {row["study_date"] for row in rows} == {"2026-01-01"}
        assert ("patient_name" in rows[0]) == asked
        assert {study["source"]["series_number"] for study in record["studies"]} == {"2"}


def test_a_result_whose_input_has_gone_still_says_whose_it_is(tmp_path: Path) -> None:
    write_patient(tmp_path / "in" / "one")
    write_patient(tmp_path / "in" / "two", series=3)
    run(tmp_path / "in", tmp_path / "out", read=read_volume, pseudonym_key=KEY)
    for path in (tmp_path / "in" / "two").iterdir():
        path.unlink()
    run(tmp_path / "in", tmp_path / "out", read=read_volume, pseudonym_key=KEY)
    rows = list(csv.DictReader((tmp_path / "out" / "volumes.csv").read_text().splitlines()))
    assert {(row["study"], row["patient"]) for row in rows if row["organ"]} == {
        (name, pseudonym(KEY, "ZZPATIENTID")) for name in ("one", "two")
    }


def test_damaged_and_left_out_files_are_named_in_record_and_page(tmp_path: Path) -> None:
    slices = write_patient(tmp_path / "in" / "ct")
    slices[2].write_bytes(slices[2].read_bytes()[:-500])
    write_patient(tmp_path / "in" / "gap", series=3)[3].unlink()
    (tmp_path / "in" / "notes.txt").write_text("spec")
    (tmp_path / "in" / "link.dcm").symlink_to("/etc/passwd")
    report = run(tmp_path / "in", tmp_path / "out")
    messages = {study.input: study.message or "" for study in report.studies}
    assert f"ct/{slices[2].name}" in messages["ct"]
    assert "behind slice 3 of 5" in messages["gap"]
    named = {one["file"]: one["reason"] for one in report.files["left_out"]}
    assert named == {"notes.txt": "not_an_image", "link.dcm": "E_SYMLINK"}
    assert report.files["left_out_unnamed"] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    for said in ("notes.txt", "link.dcm", "links are not followed", f"ct/{slices[2].name}"):
        assert said in page
