"""Tables of planes and boxes are scored frame by frame."""

import csv
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import RecipeError, UsageError
from agseg.workflows.classify_us import ClassifyRequest, classify_us
from agseg.workflows.evaluate_planes import evaluate_planes
from tests.ultrasound.plane_weights import NAME, write_plane_weights
from tests.ultrasound.scans import fan_frame


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


def test_a_prediction_without_any_box_is_no_table_of_zeros(tmp_path):
    """Table 7 of a prediction that draws no box would be zeros that look measured."""
    truth = table(tmp_path / "t.csv", "frame,label,x0,y0,x1,y1\n0,Femur,0,0,10,10\n1,Lips,0,0,9,9\n")
    plain = table(tmp_path / "frames.csv", "frame,label\n0,Femur\n1,Lips\n")
    empty = table(tmp_path / "empty.csv", "frame,label,x0,y0,x1,y1\n0,Femur,,,,\n1,Lips,,,,\n")
    for prediction in (plain, empty):
        with pytest.raises(UsageError, match="has none"):
            evaluate_planes(truth, prediction, output=tmp_path / "out")
    some = table(tmp_path / "some.csv", "frame,label,x0,y0,x1,y1\n0,Femur,0,0,10,5\n1,Lips,,,,\n")
    report = evaluate_planes(truth, some, output=tmp_path / "out")
    assert (report.drawn, report.boxes["Femur"].iou_mean, report.boxes["Lips"].iou_mean) == (1, 0.5, 0)
    assert "a box for 1 of 2 frames" in (tmp_path / "out/table.md").read_text()


def test_what_one_table_has_over_another_stands_in_brackets(tmp_path):
    truth = table(tmp_path / "t.csv", "frame,label\n" + "".join(f"{n},{'Femur' if n < 6 else 'Lips'}\n" for n in range(12)))
    good = table(tmp_path / "good.csv", truth.read_text())
    poor = table(tmp_path / "poor.csv", truth.read_text().replace("0,Femur", "0,Lips").replace("1,Femur", "1,Lips"))
    evaluate_planes(truth, poor, output=tmp_path / "a")
    report = evaluate_planes(truth, good, output=tmp_path / "b", against=[tmp_path / "a"])
    (gain,) = report.over
    assert gain.classes["Femur"] == {"precision": 0, "recall": pytest.approx(1 / 3), "f1": pytest.approx(1 - 0.8)}
    assert gain.accuracy.difference == pytest.approx(1 / 6)
    assert "| Femur | 6 | 1.000 (+0.000) | 1.000 (+0.333) | 1.000 (+0.200) |" in (tmp_path / "b/table.md").read_text()
    other = table(tmp_path / "other.csv", "frame,label\n0,Femur\n")
    with pytest.raises(RecipeError, match="same frames"):
        evaluate_planes(other, good, output=tmp_path / "c", against=[tmp_path / "a"])


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


@pytest.mark.slow
def test_table_7_comes_from_the_documented_commands(tmp_path):
    """classify-us --annotate draws a box at every frame of a plane; a truth that is half of each box has IoU one half."""
    pytest.importorskip("av")
    (tmp_path / "stills").mkdir()
    for number in range(5):
        pixels = fan_frame((320, 240), box=(60, 30, 260, 230), seed=number)
        Image.fromarray(pixels).save(tmp_path / f"stills/{number}.png")
    request = ClassifyRequest(
        (tmp_path / "stills",),
        output=tmp_path / "out",
        home=tmp_path / "home",
        weights=NAME,
        offline=True,
        device="cpu",
        manifest=write_plane_weights(tmp_path / "site"),
        annotated=True,
    )
    assert classify_us(request).exit_code == 0
    found = tmp_path / "out/stills/frames.csv"
    with found.open(newline="") as file:
        rows = list(csv.DictReader(file))
    boxed = [row for row in rows if row["x0"]]
    assert len(boxed) == len([row for row in rows if row["state"] == "plane"]) > 0
    lines = ["frame,label,x0,y0,x1,y1"]
    for row in boxed:
        x0, y0, x1, y1 = (int(row[corner]) for corner in ("x0", "y0", "x1", "y1"))
        x1 = x0 + (x1 - x0) // 2
        lines.append(f"{row['frame']},{row['label']},{x0},{y0},{x1},{y1}")
    truth = table(tmp_path / "truth.csv", "\n".join(lines) + "\n")
    done = CliRunner().invoke(app, ["evaluate", str(truth), str(found), "-o", str(tmp_path / "scores"), "--json"])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores["boxes_in_prediction"] == len(boxed)
    for boxes in scores["boxes"].values():
        assert boxes["iou"]["mean"] == pytest.approx(0.5, abs=0.02)
        assert boxes["relative_correct"] == 1
