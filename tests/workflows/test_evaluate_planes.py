"""Tables of planes and boxes are scored frame by frame."""

import json

import pytest

from agseg.errors import UsageError
from agseg.workflows.evaluate_planes import evaluate_planes


def table(path, text):
    path.write_text(text)
    return path


def test_our_own_table_against_a_truth_with_boxes(tmp_path):
    truth = table(tmp_path / "t.csv", "frame,label,x0,y0,x1,y1\n0,Femur,0,0,10,10\n4,Lips,0,0,10,10\n8,Background,,,,\n")
    found = table(tmp_path / "p.csv", "frame,label,x0,y0,x1,y1\n0,Femur,0,0,10,10\n4,Femur,,,,\n8,Background,,,,\n9,Lips,,,,\n")
    report = evaluate_planes(truth, found, output=tmp_path / "out")
    assert report.frames == 3
    assert report.planes.accuracy == pytest.approx(2 / 3)
    assert (report.boxes["Femur"].iou_mean, report.boxes["Lips"].iou_mean) == (1, 0)
    written = json.loads((tmp_path / "out/planes_scores.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert (tmp_path / "out/confusion.png").stat().st_size > 0
    assert "| Femur | 1 | 0.500 | 1.000 | 0.667 |" in (tmp_path / "out/table.md").read_text()


def test_a_table_without_boxes_and_one_that_lacks_frames(tmp_path):
    truth = table(tmp_path / "t.csv", "frame,label\n0,Femur\n1,Lips\n")
    assert evaluate_planes(truth, truth, output=tmp_path / "out").boxes == {}
    with pytest.raises(UsageError, match="lacks frames"):
        evaluate_planes(truth, table(tmp_path / "p.csv", "frame,label\n0,Femur\n"), output=tmp_path / "out")
    with pytest.raises(UsageError, match="columns"):
        evaluate_planes(truth, table(tmp_path / "q.csv", "a,b\n0,1\n"), output=tmp_path / "out")


@pytest.mark.parametrize("side", ["truth", "prediction"])
def test_a_frame_that_stands_twice_is_refused_with_its_lines(tmp_path, side):
    text = "frame,label\n7,Femur\n8,Lips\n7,Lips\n9,Femur\n7,Femur\n"
    once = table(tmp_path / "once.csv", "frame,label\n7,Femur\n8,Lips\n9,Femur\n")
    twice = table(tmp_path / "twice.csv", text)
    pair = (twice, once) if side == "truth" else (once, twice)
    with pytest.raises(UsageError, match="'7' in lines 2, 4, 6") as caught:
        evaluate_planes(*pair, output=tmp_path / "out")
    assert caught.value.path == twice
    assert not (tmp_path / "out").exists()
