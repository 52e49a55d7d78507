"""``dataset.json`` of nnU-Net and of the Decathlon: labels, regions, what is ignored, channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agseg.errors import RecipeError
from agseg.laterality import sided
from agseg.training.description import Description, described_meaning, read_description

PLAIN = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "Left Kidney": 2, "tumour": 1}, "file_ending": ".nii.gz"}


def described(folder: Path, **changed: Any) -> Description:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({**PLAIN, **changed}))
    return read_description(folder)


def test_names_become_files_and_a_folder_without_a_name_gives_its_own(tmp_path: Path) -> None:
    found = described(tmp_path / "Dataset042_Kidneys", numTraining=3, licence="CC0")
    assert (found.name, found.cases, found.licence) == ("Kidneys", 3, "CC0")
    assert {label.index: label.name for label in found.meaning.label_set} == {1: "tumour", 2: "left_kidney"}
    assert found.meaning.ignored is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("RKidney", "r_kidney"),
        ("KidneyL", "kidney_l"),
        ("LeftKidney", "leftkidney"),
        ("GTVp", "gtvp"),
        ("Rückenmark", "ruckenmark"),
    ],
)
def test_a_name_in_small_letters_has_the_side_that_it_was_written_with(tmp_path: Path, written: str, read: str) -> None:
    found = described(tmp_path / "kidneys", labels={"background": 0, written: 1})
    assert found.meaning.label_set.names == (read,)
    assert bool(sided([read])) == bool(sided([written]))


def test_the_decathlons_way_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "Task03_Liver"
    folder.mkdir()
    content = {"name": "Liver", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    found = read_description(folder)
    assert (found.name, found.channels, found.file_ending) == ("Liver", ("CT",), ".nii.gz")
    assert found.meaning.label_set.names == ("liver", "cancer")


def test_regions_name_what_they_are_made_of_and_what_they_paint(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    found = described(tmp_path, labels=labels, regions_class_order=[1, 2, 3]).meaning
    assert found.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert found.label_set.names == ("whole", "core", "enhancing")
    with pytest.raises(RecipeError, match="regions_class_order"):
        described(tmp_path, labels=labels)


def test_the_ignored_value_is_no_label_but_may_be_in_files(tmp_path: Path) -> None:
    found = described(tmp_path, labels={"background": 0, "liver": 1, "ignore": 2}).meaning
    assert found.label_set.names == ("liver",)
    assert found.in_files.names == ("liver", "ignore")
    assert found.ignored == 2


def test_channels_are_signals_unless_they_are_ct(tmp_path: Path) -> None:
    assert described(tmp_path, channel_names={"0": "CT", "1": "PET", "2": "T1"}).modalities == ("CT", "MR", "MR")
    colours = {"0": "R", "1": "G", "2": "B"}
    assert described(tmp_path, channel_names=colours, file_ending=".png").modalities == ("RGB",)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": {"1": "CT"}}, "channel_names"),
        ({"labels": {}}, "labels"),
        ({"labels": {"background": 0, "liver": "one"}}, "labels"),
        ({"labels": {"background": 0, "liver": 300}}, "labels"),
        ({"labels": {"background": 0, "a b": 1, "A-b": 2}}, "labels"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "labels"),
    ],
)
def test_what_does_not_hold_together_is_refused_by_its_key(tmp_path: Path, changed: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        described(tmp_path, **changed)


def test_a_folder_of_masks_needs_no_channels(tmp_path: Path) -> None:
    assert described_meaning(tmp_path) is None
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    found = described_meaning(tmp_path)
    assert found is not None
    assert found.label_set.names == ("liver",)
