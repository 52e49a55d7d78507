"""Discovery: every file in exactly one place, every series told apart, nothing followed that must not be."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agseg.errors import Code, UsageError
from agseg.io import discover as discover_module
from agseg.io.dicom import header as header_module
from agseg.io.dicom.header import FIRST_READ_BYTES
from agseg.io.discover import discover
from agseg.io.finished import contents_of
from agseg.io.opening import open_regular
from agseg.study import Discovery, StudyKind
from tests import mutations, phantoms
from tests.conftest import is_root

SHAPE, SPACING = (12, 10, 5), (1.5, 2.0, 2.5)

CONTENTS = [
    b"",
    b"text",
    b"\0" * 128 + b"DICM",
    b"\0" * 128 + b"DICM" + b"\x07" * 50,
    b"\x1f\x8b\x08broken",
    b"PK\x03\x04",
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    b"\x5c\x01\0\0" + b"\0" * 340 + b"n+1\0",
    b"\x5c\x01\0\0" + b"\0" * 344,
    b"NRRD0004\ntype: int\n\n",
    b"ObjectType = Image\nNDims = 3\n",
]
"""First bytes of many kinds of file, whole and broken."""


@pytest.fixture
def series():
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    return phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine


def everything_below(root: Path) -> list[Path]:
    return [Path(parent) / name for parent, folders, names in os.walk(root) for name in [*names, *_links(parent, folders)]]


def _links(parent: str, folders: list[str]) -> list[str]:
    return [name for name in folders if (Path(parent) / name).is_symlink()]


def assert_ledger(found: Discovery, root: Path) -> None:
    listed = [path for study in found.studies for path in study.files] + [skip.path for skip in found.skipped]
    assert sorted(map(str, listed)) == sorted(map(str, everything_below(root)))
    assert found.files_found == len(listed)


def only(found: Discovery):
    assert len(found.studies) == 1, [study.id for study in found.studies]
    return found.studies[0]


def reasons(found: Discovery) -> dict[str, str]:
    return {skip.path.name: str(skip.reason) for skip in found.skipped}


def before_stat(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]) -> None:
    """Let something happen after a folder was listed and before each of its entries is examined."""
    real = os.scandir

    class Entry:
        def __init__(self, entry):
            self.name, self.path = entry.name, entry.path

        def stat(self, *, follow_symlinks):
            act(Path(self.path))
            return Path(self.path).stat(follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "scandir", lambda folder: nullcontext([Entry(entry) for entry in real(folder)]))


class TestLedger:
    def test_mixed_folder(self, tmp_path, series):
        hu, affine = series
        phantoms.write_dicom(tmp_path / "a" / "ct", hu, affine)
        phantoms.write_dicom(tmp_path / "a" / "mr", hu, affine, modality="MR", series=3)
        phantoms.write_nifti(tmp_path / "b" / "case.nii.gz", hu, affine)
        phantoms.write_nifti(tmp_path / "b" / "mask.nii.gz", (hu > 50).astype(np.uint8), affine)
        (tmp_path / "notes.txt").write_text("hello")
        (tmp_path / "empty.dcm").touch()
        (tmp_path / "archive.zip").write_bytes(b"PK\x03\x04rest")
        (tmp_path / ".DS_Store").write_bytes(b"x")
        (tmp_path / "link-to-folder").symlink_to(tmp_path / "b")
        (tmp_path / "link-to-file").symlink_to("/etc/passwd")
        os.mkfifo(tmp_path / "pipe")
        found = discover([tmp_path])
        assert_ledger(found, tmp_path)
        assert {study.id for study in found.studies if study.rejected is None} == {"a/ct", "b/case"}
        assert reasons(found)["mask.nii.gz"] == "label_map"
        assert reasons(found)["link-to-file"] == reasons(found)["link-to-folder"] == "E_SYMLINK"
        assert reasons(found)["pipe"] == "not_a_regular_file"
        assert [study.rejected.code for study in found.studies if study.id == "archive.zip"] == [Code.UNSUPPORTED_INPUT]

    @given(st.data())
    def test_any_tree(self, tmp_path_factory, data):
        root = tmp_path_factory.mktemp("tree")
        names = st.sampled_from(
            ["a", "b.dcm", "c.nii", "c.nii.gz", "d.hdr", "d.img", "e.mha", "f.nrrd", "1.2.840.3", "study.json"]
        )
        for folder in data.draw(st.lists(st.sampled_from(["", "x", "x/y", "z"]), max_size=6)):
            path = root / folder / data.draw(names)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.draw(st.sampled_from(CONTENTS)))
        assert_ledger(discover([root]), root)

    def test_overlapping_inputs_count_once(self, tmp_path, series):
        phantoms.write_dicom(tmp_path / "ct", *series)
        found = discover([tmp_path, tmp_path / "ct", tmp_path / "ct" / "IM0000.dcm"])
        assert_ledger(found, tmp_path)
        assert only(found).id == "ct"

    def test_missing_input_is_a_usage_error(self, tmp_path):
        with pytest.raises(UsageError):
            discover([tmp_path / "nowhere"])


class TestSeries:
    @given(st.permutations(range(SHAPE[2])))
    def test_files_come_in_order_of_position(self, tmp_path_factory, order):
        affine = phantoms.dicom_affine("oblique", SHAPE, SPACING)
        folder = tmp_path_factory.mktemp("ct")
        written = phantoms.write_dicom(folder, phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine, order=order)
        assert only(discover([folder])).files == tuple(written)

    def test_two_series_in_one_folder(self, tmp_path, series):
        phantoms.write_dicom(tmp_path / "x", *series, series=2)
        phantoms.write_dicom(tmp_path / "x", *series, series=5, suffix=".ima")
        ids = [study.id for study in discover([tmp_path]).studies]
        assert [name.rsplit("-", 1)[0] for name in ids] == ["x/series-2", "x/series-5"]
        assert all(phantoms.UID_ROOT not in name for name in ids)

    def test_series_over_several_folders_is_one(self, tmp_path, series):
        paths = phantoms.write_dicom(tmp_path / "cd" / "DIR000", *series)
        for path in paths[::2]:
            target = tmp_path / "cd" / "DIR001" / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        study = only(discover([tmp_path]))
        assert study.id == "cd"
        assert study.rejected is None
        assert len(study.files) == SHAPE[2]

    def test_an_empty_uid_joins_nothing(self, tmp_path, series):
        def blank(dataset, _k):
            dataset.StudyInstanceUID = dataset.SeriesInstanceUID = ""

        phantoms.write_dicom(tmp_path / "a", *series, change=blank)
        phantoms.write_dicom(tmp_path / "b", *series, change=blank)
        found = discover([tmp_path])
        assert [study.id for study in found.studies] == ["a", "b"]
        assert all(study.warnings[0].code is Code.MISSING_UIDS for study in found.studies)

    def test_identical_copies_are_dropped_and_said(self, tmp_path, series):
        for path in phantoms.write_dicom(tmp_path / "a", *series):
            (tmp_path / "b").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "b" / path.name)
        found = discover([tmp_path])
        study = only(found)
        assert study.id == "a"
        assert study.warnings[0].code is Code.DUPLICATE_SLICES
        assert found.skipped_reasons == {"identical_copy": SHAPE[2]}
        assert_ledger(found, tmp_path)

    def test_localizer_is_split_off(self, tmp_path, series):
        hu, affine = series
        phantoms.write_dicom(tmp_path, hu, affine)
        scout = phantoms.dicom_affine("coronal", (12, 10, 1), SPACING)

        def localizer(dataset, _k):
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        phantoms.write_dicom(tmp_path, hu[:, :, :1], scout, suffix=".scout", change=localizer)
        found = discover([tmp_path])
        assert only(found).rejected is None
        assert found.skipped_reasons == {"localizer": 1}

    def test_other_modality_is_rejected_alone_and_skipped_beside_a_ct(self, tmp_path, series):
        phantoms.write_dicom(tmp_path / "mr", *series, modality="MR", series=3)
        assert only(discover([tmp_path])).rejected.code is Code.MODALITY
        phantoms.write_dicom(tmp_path / "ct", *series)
        found = discover([tmp_path])
        assert only(found).id == "ct"
        assert found.skipped_reasons == {"other_modality": SHAPE[2]}
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "mr").rename(tmp_path / "elsewhere" / "mr")
        assert [study.rejected is None for study in discover([tmp_path]).studies] == [True, False]

    @pytest.mark.parametrize(("name", "is_lost_slice"), [("lost.dcm", True), ("lost", False), ("lost.txt", False)])
    def test_unreadable_file_with_the_slices_suffix_rejects(self, tmp_path, series, name, is_lost_slice):
        phantoms.write_dicom(tmp_path, *series)
        (tmp_path / name).touch()
        found = discover([tmp_path])
        assert_ledger(found, tmp_path)
        assert (only(found).rejected is not None) is is_lost_slice

    def test_the_unreadable_file_is_the_reason_and_not_the_gap_that_it_leaves(self, tmp_path, series):
        phantoms.write_dicom(tmp_path, *series)[2].write_bytes(b"")
        found = discover([tmp_path])
        assert only(found).rejected.code is Code.TRUNCATED
        assert_ledger(found, tmp_path)

    @pytest.mark.slow
    @pytest.mark.parametrize("where", ["start", "middle", "end", "all but three"])
    @pytest.mark.parametrize("suffix", [".dcm", "", ".1"])
    @pytest.mark.parametrize("target", ["outside", "beside", "nowhere"])
    def test_slices_that_are_links_reject_the_series(self, tmp_path, series, where, suffix, target):
        paths = phantoms.write_dicom(tmp_path / "in" / "ct", *series, suffix=suffix)
        (tmp_path / "store").mkdir()
        lost = {"start": paths[:1], "middle": paths[2:3], "end": paths[-1:], "all but three": paths[3:]}[where]
        for path in lost:
            stored = path.rename(tmp_path / "store" / path.name)
            path.symlink_to({"outside": stored, "beside": paths[1], "nowhere": tmp_path / "nowhere"}[target])
        found = discover([tmp_path / "in"])
        assert only(found).rejected.code is Code.SYMLINK
        assert found.skipped_reasons == {"E_SYMLINK": len(lost)}
        assert_ledger(found, tmp_path / "in")

    @pytest.mark.parametrize(("name", "is_told"), [("README.dcm", True), ("latest", False), (".IM0099.dcm", False)])
    def test_a_link_that_is_not_named_like_the_slices_is_no_lost_slice(self, tmp_path, series, name, is_told):
        phantoms.write_dicom(tmp_path, *series)
        (tmp_path / name).symlink_to(tmp_path)
        study = only(discover([tmp_path]))
        assert study.rejected is None
        assert ([warned.code for warned in study.warnings] == [Code.JUNK_FILES]) is is_told

    def test_a_link_in_another_folder_or_left_out_by_the_user_is_no_lost_slice(self, tmp_path, series):
        paths = phantoms.write_dicom(tmp_path / "a", *series)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "IM0099.dcm").symlink_to(paths[0])
        assert only(discover([tmp_path])).rejected is None
        (tmp_path / "a" / "IM0099.dcm").symlink_to(paths[0])
        assert only(discover([tmp_path])).rejected.code is Code.SYMLINK
        found = discover([tmp_path], exclude=["IM0099*"])
        assert only(found).rejected is None
        assert found.skipped_reasons == {"excluded": 2}

    @pytest.mark.parametrize(("name", "is_lost_slice"), [("IM0004.dcm", True), ("IM0099.dcm", True), ("notes.txt", False)])
    def test_a_file_that_cannot_be_examined_rejects_as_an_unreadable_one_does(
        self, tmp_path, series, monkeypatch, name, is_lost_slice
    ):
        phantoms.write_dicom(tmp_path, *series)
        (tmp_path / name).touch()

        def hiccup(path):
            if path.name == name:
                raise OSError(errno.EIO, "a share that hiccups")

        before_stat(monkeypatch, hiccup)
        found = discover([tmp_path])
        rejected = only(found).rejected
        assert (rejected is not None) is is_lost_slice
        assert rejected is None or rejected.code is Code.UNREADABLE_FILE
        assert found.skipped_reasons == {"E_UNREADABLE_FILE": 1}

    @pytest.mark.parametrize("name", ["IM0009.dcm", "a81", "IM0002.dcm.part", ".IM0002.dcm.Xa81"])
    @pytest.mark.parametrize("include", [[], ["*.dcm"]])
    def test_a_file_renamed_after_its_folder_was_listed_means_that_the_series_still_arrives(
        self, tmp_path, series, monkeypatch, name, include
    ):
        paths = phantoms.write_dicom(tmp_path / "a", *series)
        phantoms.write_dicom(tmp_path / "b", *series, series=3)
        paths[2].rename(tmp_path / "a" / name)
        with monkeypatch.context() as patched:
            before_stat(patched, lambda path: path.rename(paths[2]) if path.name == name else None)
            found = discover([tmp_path], include=include)
        assert {study.id: study.rejected and study.rejected.code for study in found.studies} == {"a": Code.CHANGED, "b": None}
        assert found.skipped_reasons == {"E_CHANGED": 1}
        again = discover([tmp_path], include=include)
        assert [(len(study.files), study.rejected) for study in again.studies] == [(SHAPE[2], None)] * 2

    @pytest.mark.parametrize("name", ["IM0009.dcm", "a81", "IM0002.dcm.part"])
    def test_a_file_renamed_before_it_is_opened_means_that_the_series_still_arrives(self, tmp_path, series, monkeypatch, name):
        paths = phantoms.write_dicom(tmp_path, *series)
        paths[2].rename(tmp_path / name)
        real = discover_module.listed

        def list_and_rename(*given, **more):
            found = real(*given, **more)
            (tmp_path / name).rename(paths[2])
            return found

        monkeypatch.setattr(discover_module, "listed", list_and_rename)
        found = discover([tmp_path])
        assert only(found).rejected.code is Code.CHANGED
        assert found.skipped_reasons == {"E_CHANGED": 1}

    def test_a_file_that_the_user_left_out_may_go(self, tmp_path, series, monkeypatch):
        phantoms.write_dicom(tmp_path, *series)
        (tmp_path / "x.lock").touch()
        before_stat(monkeypatch, lambda path: path.unlink() if path.name == "x.lock" else None)
        found = discover([tmp_path], exclude=["*.lock"])
        assert only(found).rejected is None
        assert found.skipped_reasons == {"excluded": 1}

    def test_a_folder_renamed_before_it_is_listed_has_gone_and_is_not_forbidden(self, tmp_path, series, monkeypatch):
        phantoms.write_dicom(tmp_path / "ct", *series)
        (tmp_path / "incoming").mkdir()
        before_stat(monkeypatch, lambda path: (tmp_path / "incoming").rmdir() if path.name == "IM0000.dcm" else None)
        found = discover([tmp_path])
        assert only(found).rejected is None
        assert found.skipped_reasons == {"E_CHANGED": 1}

    @pytest.mark.skipif(is_root(), reason="root may read every file")
    def test_locked_slice_rejects(self, tmp_path, series):
        phantoms.write_dicom(tmp_path, *series)[2].chmod(0)
        assert only(discover([tmp_path])).rejected.code is Code.PERMISSION


class TestNames:
    def test_files_directly_in_input_take_its_name(self, tmp_path, series):
        phantoms.write_dicom(tmp_path / "patient", *series)
        assert only(discover([tmp_path / "patient"])).id == "patient"

    def test_volume_files_lose_their_suffix(self, tmp_path, series):
        for name in ("CASE.nii.gz", "OTHER_0000.nii.gz", "sub/x.nii"):
            phantoms.write_nifti(tmp_path / name, *series)
        assert [study.id for study in discover([tmp_path]).studies] == ["CASE", "OTHER_0000", "sub/x"]

    def test_same_names_in_two_inputs_stay_apart(self, tmp_path, series):
        for day in ("monday", "tuesday"):
            phantoms.write_nifti(tmp_path / day / "case.nii.gz", *series)
        ids = [study.id for study in discover([tmp_path / "monday", tmp_path / "tuesday"]).studies]
        assert ids == ["monday/case", "tuesday/case"]

    def test_ids_never_collide(self, tmp_path, series):
        phantoms.write_nifti(tmp_path / "x.nii.gz", *series)
        phantoms.write_nifti(tmp_path / "x.nii", *series)
        phantoms.write_dicom(tmp_path / "x", *series)
        ids = [study.id for study in discover([tmp_path]).studies]
        assert len(set(ids)) == 3

    def test_globs(self, tmp_path, series):
        for name in ("a/1.nii.gz", "a/2.nii.gz", "b/1.nii.gz"):
            phantoms.write_nifti(tmp_path / name, *series)
        assert [s.id for s in discover([tmp_path], include=["a/*"]).studies] == ["a/1", "a/2"]
        assert [s.id for s in discover([tmp_path], exclude=["a"]).studies] == ["b/1"]
        assert [s.id for s in discover([tmp_path], include=["1.nii.gz"], exclude=["b/*"]).studies] == ["a/1"]
        assert_ledger(discover([tmp_path], include=["a/*"], exclude=["*2*"]), tmp_path)

    @pytest.mark.parametrize("target", ["store", "nowhere"])
    def test_a_link_to_a_folder_is_told_whatever_the_files_in_it_must_be_called(self, tmp_path, series, target):
        phantoms.write_dicom(tmp_path / "in" / "p1", *series)
        phantoms.write_dicom(tmp_path / "store", *series)
        (tmp_path / "in" / "p2").symlink_to(tmp_path / target)
        found = discover([tmp_path / "in"], include=["*.dcm"])
        assert only(found).rejected is None
        assert reasons(found) == {"p2": "E_SYMLINK"}
        assert reasons(discover([tmp_path / "in"], include=["*.dcm"], exclude=["p2"])) == {"p2": "excluded"}


def own_record(folder, *names):
    """What a run writes about these files of a finished study."""
    facts = {"schema": "agseg.study/2", "input": "case", "status": "done", "organs": [], "key": "0" * 64}
    return {**facts, "files": [*names, "study.json"], "contents": contents_of(folder, names)}


class TestVolumes:
    def test_own_results_are_skipped(self, tmp_path, series):
        hu, affine = series
        folder, gate = tmp_path / "out" / "case", "attention/gate.nii.gz"
        phantoms.write_nifti(folder / gate, hu.astype(np.float32), affine)
        (folder / "study.json").write_text(json.dumps(own_record(folder, gate)))
        found = discover([tmp_path])
        assert found.studies == ()
        assert found.skipped_reasons == {"own_output": 2}
        # A scan that is put beside our results is no result.
        phantoms.write_nifti(folder / "scan.nii.gz", hu, affine)
        assert only(discover([tmp_path])).id == "out/case/scan"

    @pytest.mark.parametrize(
        "change",
        [
            None,
            {"schema": "agseg.run/1"},
            {"key": 0},
            {"key": "short"},
            {"files": "case.nii.gz"},
            {"files": []},
            {"contents": {}},
            {"contents": []},
            {"contents": {"case.nii.gz": {"size_bytes": 5, "sha256": "0" * 64}}},
            {"contents": {"case.nii.gz": 7}},
            {"files": ["../case.nii.gz"]},
            {"organs": 0},
        ],
    )
    def test_a_study_json_that_no_run_could_have_written_hides_nothing(self, tmp_path, series, change):
        phantoms.write_nifti(tmp_path / "case.nii.gz", *series)
        three_keys = {"input": 0, "status": 0, "organs": 0}
        record = three_keys if change is None else own_record(tmp_path, "case.nii.gz") | change
        (tmp_path / "study.json").write_text(json.dumps(record))
        assert only(discover([tmp_path])).id == "case"

    @pytest.mark.parametrize("name", ["IM0001.dcm", "scan.nii.gz", "case/liver.nii.gz", "seg.nii.gz", "x.mha"])
    def test_a_forged_record_with_right_digests_hides_no_scan(self, tmp_path, series, name):
        if name.endswith(".dcm"):
            phantoms.write_dicom(tmp_path, *series)
            names = sorted(path.name for path in tmp_path.iterdir())
        elif name.endswith(".mha"):
            (tmp_path / name).write_bytes(b"".join(mutations.metaimage()))
            names = [name]
        else:
            phantoms.write_nifti(tmp_path / name, *series)
            names = [name]
        record = own_record(tmp_path, *names) | {"organs": [{"name": "liver"}]}
        (tmp_path / "study.json").write_text(json.dumps(record))
        assert len(discover([tmp_path]).studies) == 1

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "\udcff", '{"patient": 1}'])
    def test_a_study_json_that_is_none_hides_nothing(self, tmp_path, series, text):
        phantoms.write_nifti(tmp_path / "case.nii.gz", *series)
        (tmp_path / "study.json").write_bytes(text.encode(errors="surrogateescape"))
        assert only(discover([tmp_path])).id == "case"

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
    def test_label_maps_of_any_type(self, tmp_path, series, dtype):
        hu, affine = series
        labels = (hu > 50).astype(dtype) * 7
        phantoms.write_nifti(tmp_path / "labels.nii.gz", labels, affine)
        assert discover([tmp_path]).skipped_reasons == {"label_map": 1}

    def test_an_empty_mask_is_a_label_map_but_an_empty_ct_is_a_study(self, tmp_path, series):
        _, affine = series
        phantoms.write_nifti(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8), affine)
        phantoms.write_nifti(tmp_path / "ct.nii.gz", np.zeros(SHAPE, np.int16), affine)
        assert only(discover([tmp_path])).id == "ct"

    def test_pair_is_one_study(self, tmp_path, series):
        import nibabel

        hu, affine = series
        nibabel.save(nibabel.Nifti1Pair(hu, affine), tmp_path / "pair.img")
        found = discover([tmp_path])
        assert [path.name for path in only(found).files] == ["pair.hdr", "pair.img"]
        assert_ledger(found, tmp_path)

    def test_kinds(self, tmp_path, series):
        import SimpleITK

        image = SimpleITK.GetImageFromArray(series[0])
        for name in ("a.mha", "b.nrrd", "c.mhd"):
            SimpleITK.WriteImage(image, str(tmp_path / name))
        found = discover([tmp_path])
        assert [study.kind for study in found.studies] == [StudyKind.METAIMAGE, StudyKind.NRRD, StudyKind.METAIMAGE]
        assert [path.name for path in found.studies[2].files] == ["c.mhd", "c.raw"]
        assert_ledger(found, tmp_path)


class Counted:
    """A file that notes how many bytes are read of it."""

    def __init__(self, path, read):
        self._stream, self._read = open_regular(path), read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def read(self, count=-1):
        found = self._stream.read(count)
        self._read.append(len(found))
        return found


def test_a_slice_is_known_by_its_first_bytes_and_without_pydicom(tmp_path, monkeypatch):
    """Which makes finding the studies of a large archive quick."""
    paths = phantoms.write_dicom(
        tmp_path, np.arange(256 * 256 * 3, dtype=np.int16).reshape(256, 256, 3), np.diag([1, 1, 2.5, 1])
    )
    read = []
    for module in (discover_module, header_module):
        monkeypatch.setattr(module, "open_regular", lambda path: Counted(path, read))
    monkeypatch.setattr(header_module, "_via_pydicom", None)
    assert len(only(discover([tmp_path])).files) == len(paths)
    assert 0 < sum(read) <= FIRST_READ_BYTES * len(paths) < sum(path.stat().st_size for path in paths) / 4
