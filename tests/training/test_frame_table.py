"""Improvements are differences, and tests are over subjects."""

from __future__ import annotations

import pytest

from agseg.training.frame_table import FrameTable, improvement, read_frame_table, to_markdown, write_frame_table
from agseg.training.published import published_row
from agseg.training.scoring import FrameScore

CLASSES = tuple(published_row("fetal-us.classes.ag-sononet-ft-8").scores)


def frames(model, wrong=()):
    """Ten subjects with one frame of every class; ``wrong`` subjects have their femur called lips."""
    found = []
    for subject in range(10):
        for number, name in enumerate(CLASSES):
            called = "Lips" if subject in wrong and name == "Femur" else name
            found.append(FrameScore(f"s{subject}/{number}", name, called, 0.9))
    return FrameTable(model, CLASSES, tuple(found))


def test_a_difference_is_tested_subject_by_subject_not_frame_by_frame():
    gain = improvement(frames("good", wrong=[0]), frames("poor", wrong=range(7)))
    assert gain.classes["Femur"]["recall"] == pytest.approx(0.9 - 0.3)
    assert gain.classes["Lips"]["precision"] == pytest.approx(10 / 11 - 10 / 17)
    assert gain.classes["Spine (cor.)"] == {"precision": 0, "recall": 0, "f1": 0}
    assert gain.accuracy.n == 10
    assert gain.accuracy.difference == pytest.approx(6 / 140)
    assert gain.accuracy.p == pytest.approx(2 / 2**6)  # six subjects moved, all one way
    test, corrected = gain.recall["Femur"]
    assert test.p == pytest.approx(2 / 2**6)
    assert corrected == pytest.approx(14 * 2 / 2**6)


def test_what_is_written_is_read(tmp_path):
    one = frames("good", wrong=[3])
    write_frame_table(tmp_path, one, over=[improvement(one, frames("poor"))])
    assert read_frame_table(tmp_path) == one
    assert "recall over poor" in (tmp_path / "classes.csv").read_text().splitlines()[0]


def test_the_published_classes_stand_below_ours():
    ours = frames("ag-sononet-ft-8", wrong=[3])
    gain = improvement(ours, frames("sononet-8", wrong=[3, 4]))
    row, by_class = published_row("fetal-us.ag-sononet-ft-8"), published_row("fetal-us.classes.ag-sononet-ft-8")
    text = to_markdown(ours, [gain], row, by_class)
    assert "| *published: Profile* | | 0.953 (+0.055) | 0.962 (+0.009) | 0.958 (+0.033) | | |" in text
    assert "| Femur | 10 | 1.000 (+0.000) | 0.900 (+0.100) |" in text
    assert "published" not in to_markdown(ours, [], None, None)
