"""classify-us end to end, with a small network of random weights: what is written, what is not, and how runs end."""

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from agseg.batch.frame_reader import FrameReader
from agseg.errors import Code, ExitCode, UsageError, WeightsError
from agseg.io.video.clips import open_clip
from agseg.report import StudyStatus
from agseg.ultrasound.timeline import PLANES
from agseg.workflows.classify_us import ClassifyRequest, classify_us
from tests.ultrasound.scans import PATIENT, fan_frame, write_cine, write_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A site's manifest with an AG-Sononet-8 of random weights whose answer is sure and depends on the picture."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from agseg.models.registry import build

    folder = tmp_path_factory.mktemp("site")
    torch.manual_seed(3)
    module = build("ag-sononet-8", {})
    with torch.no_grad():
        for number, head in enumerate(module.head):
            head.bias.zero_()
            head.bias[PLANES.index("Femur")] = 8.0 + number
    save_file(module.state_dict(), folder / "random.safetensors")
    content = (folder / "random.safetensors").read_bytes()
    entry = {
        "architecture": "ag-sononet-8",
        "format": "safetensors",
        "files": [
            {
                "filename": "random.safetensors",
                "local": "random.safetensors",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": len(content),
            }
        ],
        "input": {"modality": "US", "normalisation": "zscore", "tile": [208, 272, 1]},
        "classes": list(PLANES),
        "licence": "none",
        "citation": "none",
        "attribution": "none",
        "intended_use": "tests",
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"schema": "agseg.weights/1", "entries": {"random-planes": entry}}))
    return path


@pytest.fixture
def run(manifest, tmp_path):
    def run(*inputs, **options):
        request = ClassifyRequest(
            inputs=tuple(inputs),
            output=options.pop("output", tmp_path / "out"),
            home=tmp_path / "home",
            weights="random-planes",
            manifest=manifest,
            offline=True,
            device="cpu",
            **options,
        )
        return classify_us(request)

    return run


def frames_of(count, size=(320, 240)):
    return [fan_frame(size, box=(60, 30, 260, 230), seed=index) for index in range(count)]


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "scan.mp4", frames_of(11), metadata={"title": PATIENT, "comment": PATIENT})


def rows_of(folder):
    with (folder / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files_below(folder):
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    }


def test_a_video_gives_every_file_of_the_interface(run, video, tmp_path):
    report = run(video, annotated=True)
    out = tmp_path / "out"
    assert report.exit_code is ExitCode.OK
    assert files_below(out) == {
        "run.json",
        *(f"scan/{name}" for name in ("frames.csv", "planes.json", "timeline.png", "annotated.mp4")),
        "scan/best/Femur.png",
        "scan/attention/Femur.png",
    }
    rows = rows_of(out / "scan")
    assert list(rows[0]) == ["frame", "time_s", "label", "probability", "smoothed_label", "state", *PLANES]
    assert [int(row["frame"]) for row in rows] == list(range(11))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([0.04 * i for i in range(11)], abs=1e-3)
    for row in rows:
        assert sum(float(row[name]) for name in PLANES) == pytest.approx(1, abs=1e-4)
        assert row["state"] in ("plane", "background", "unsure")
    planes = json.loads((out / "scan/planes.json").read_text())
    femur = planes["Femur"]
    x0, y0, x1, y1 = femur["box"]
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 240
    best = max(rows, key=lambda row: float(row["Femur"]))
    assert femur["probability"] == pytest.approx(float(best["Femur"]), abs=1e-6)
    record = json.loads((out / "run.json").read_text())
    assert record["schema"] == "agseg.run/2"
    assert record["weights"]["id"] == "random-planes"
    assert record["studies"][0]["frames"] == 11
    assert sorted(record["studies"][0]["files"]) == sorted(files_below(out / "scan"))


def test_the_annotated_video_has_every_frame_at_its_time(run, tmp_path):
    import av

    times = [0, 40, 200, 230, 900]
    source = write_video(tmp_path / "vfr.mkv", frames_of(5), times_ms=times)
    run(source, annotated=True)
    with av.open(str(tmp_path / "out/vfr/annotated.mp4")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx([t / 1000 for t in times], abs=2e-3)


def test_every_nth_frame_is_that_of_the_whole(run, video, tmp_path):
    run(video)
    whole = {row["frame"]: row for row in rows_of(tmp_path / "out/scan")}
    run(video, step=3, output=tmp_path / "some")
    some = rows_of(tmp_path / "some/scan")
    assert [row["frame"] for row in some] == ["0", "3", "6", "9"]
    for row in some:
        assert row["time_s"] == whole[row["frame"]]["time_s"]
        assert float(row["Femur"]) == pytest.approx(float(whole[row["frame"]]["Femur"]), abs=1e-4)


def test_the_same_clip_as_video_cine_and_stills_gives_the_same_probabilities(run, tmp_path):
    frames = frames_of(5)
    lossless = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    cine = write_cine(tmp_path / "b.dcm", np.stack(frames), FrameTime=40)
    (tmp_path / "c").mkdir()
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"c/{index}.png")
    # One crop for all: stills find a fan each.
    run(lossless, cine, tmp_path / "c", crop=(60, 30, 260, 230))
    tables = [rows_of(tmp_path / "out" / name) for name in ("a", "b", "c")]
    for name in PLANES:
        values = np.array([[float(row[name]) for row in table] for table in tables])
        assert np.allclose(values, values[0], atol=1e-5)
    assert [row["time_s"] for row in tables[2]] == [""] * 5


def test_a_crop_overrides_the_fan(run, video, tmp_path):
    report = run(video, crop=(100, 50, 220, 150))
    assert report.studies[0].extra["views"] == ["given"]
    with Image.open(tmp_path / "out/scan/best/Femur.png") as image:
        shown = np.asarray(image)
    outside = np.ones(shown.shape[:2], bool)
    outside[50:150, 100:220] = False
    assert not shown[outside].any()
    assert shown[~outside].any()


def test_letters_beside_the_fan_are_in_no_picture(run, tmp_path):
    pixels = fan_frame((320, 240), box=(60, 60, 220, 210))
    clean = fan_frame((320, 240), box=(60, 60, 220, 210), text=False)
    path = tmp_path / "still.png"
    Image.fromarray(pixels).save(path)
    run(path)
    with Image.open(tmp_path / "out/still/best/Femur.png") as image:
        shown = np.asarray(image)
        assert image.info == {}
    letters = (pixels != clean).any(axis=2)
    assert not shown[letters].any()
    assert shown.any()


def test_a_broken_clip_costs_only_itself(run, video, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_text("no video")
    report = run(tmp_path / "empty.mp4", video, tmp_path / "text.avi")
    assert [study.status for study in report.studies] == [StudyStatus.REJECTED, StudyStatus.DONE, StudyStatus.REJECTED]
    assert [study.code for study in report.studies] == [Code.VIDEO, None, Code.VIDEO]
    assert report.exit_code is ExitCode.SOME_NOT_DONE
    assert not (tmp_path / "out/empty").exists()
    assert run(tmp_path / "empty.mp4").exit_code is ExitCode.NONE_DONE


def open_or_crash(clip):
    """Opens a clip as ever, but for one whose decoder ends the process it runs in."""
    if clip.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return open_clip(clip)


def test_a_decoder_that_crashes_costs_only_its_clip(run, video, tmp_path, monkeypatch):
    import agseg.workflows.classify_us as module

    monkeypatch.setattr(module, "FrameReader", lambda: FrameReader(open_or_crash))
    crash = tmp_path / "crash.mp4"
    crash.write_bytes(video.read_bytes())
    report = run(crash, video)
    assert [study.status for study in report.studies] == [StudyStatus.FAILED, StudyStatus.DONE]
    assert report.studies[0].code is Code.CRASHED
    assert "SIGSEGV" in report.studies[0].message
    assert report.exit_code is ExitCode.SOME_NOT_DONE
    assert not (tmp_path / "out/crash").exists()


def test_a_bug_in_one_clip_costs_only_that_clip_and_is_called_one(run, video, tmp_path, monkeypatch):
    import agseg.workflows.clip_classifier as module

    original, seen = module.draw_timeline, []

    def fails_once(timeline):
        seen.append(timeline)
        if len(seen) == 1:
            raise ZeroDivisionError(PATIENT)
        return original(timeline)

    monkeypatch.setattr(module, "draw_timeline", fails_once)
    report = run(video, write_video(tmp_path / "other.mp4", frames_of(4)))
    assert [study.status for study in report.studies] == [StudyStatus.FAILED, StudyStatus.DONE]
    assert report.exit_code is ExitCode.BUG
    assert PATIENT not in json.dumps(report.to_dict())


def test_nothing_to_do_and_impossible_wishes(run, video, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert run(tmp_path / "nothing").exit_code is ExitCode.NO_STUDY
    with pytest.raises(UsageError):
        run(tmp_path / "missing.mp4")
    with pytest.raises(UsageError):
        run(video, crop=(5, 5, 5, 9))
    with pytest.raises(WeightsError):
        classify_us(ClassifyRequest((video,), tmp_path / "out", tmp_path / "home", offline=True, device="cpu"))


def test_a_folder_without_a_clip_says_what_was_there(tmp_path):
    (tmp_path / "in").mkdir()
    write_cine(tmp_path / "in" / "scan.dcm", np.zeros((1, 8, 8), np.uint8), photometric="MONOCHROME2", Modality="CT")
    command = [sys.executable, "-m", "agseg", "classify-us", "in", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith("no clip found in in: expected videos, ultrasound DICOM or images, found 1 other file")
    assert "1 E_MODALITY" in done.stderr
    assert subprocess.run([*command, "-q"], cwd=tmp_path, capture_output=True, text=True).stderr == ""


def test_a_second_run_replaces_the_first_and_leaves_no_old_picture(run, video, tmp_path):
    run(video, annotated=True)
    stale = tmp_path / "out/scan/best/Kidneys.png"
    stale.write_bytes((tmp_path / "out/scan/best/Femur.png").read_bytes())
    first = (tmp_path / "out/scan/frames.csv").read_bytes()
    run(video)
    assert not stale.exists()
    assert not (tmp_path / "out/scan/annotated.mp4").exists()
    assert (tmp_path / "out/scan/frames.csv").read_bytes() == first


def test_the_result_of_a_clip_that_is_now_broken_does_not_look_complete(run, video, tmp_path):
    run(video)
    planes, content = tmp_path / "out/scan/planes.json", video.read_bytes()
    before = planes.read_bytes()
    video.write_bytes(b"no video any more")
    assert [study.status for study in run(video).studies] == [StudyStatus.REJECTED]
    assert not planes.exists()
    assert planes.with_name("planes.outdated.json").read_bytes() == before
    video.write_bytes(content)
    run(video)
    assert planes.read_bytes() == before
    assert not planes.with_name("planes.outdated.json").exists()


def test_results_are_private_and_no_name_is_in_any_of_them(run, video, tmp_path):
    cine = write_cine(tmp_path / "cine.dcm", np.stack(frames_of(4)), FrameTime=40)
    old = os.umask(0)
    try:
        report = run(video, cine, annotated=True)
    finally:
        os.umask(old)
    for path in (tmp_path / "out").rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            assert not re.search(rb"ZEBEDEE|4711", path.read_bytes()), path
    assert "ZEBEDEE" not in json.dumps(report.to_dict())


def test_memory_does_not_grow_with_the_clip(run, tmp_path):
    """Frames alive at once stay few, however long the clip is."""
    import gc

    from agseg.io.video.frames import Frame

    source = write_video(tmp_path / "long.mp4", frames_of(10) * 4)
    most = 0
    stop = threading.Event()

    def watch():
        nonlocal most
        while not stop.is_set():
            most = max(most, sum(isinstance(item, Frame) for item in gc.get_objects()))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run(source)
    finally:
        stop.set()
        watcher.join()
    assert 0 < most <= 18


def test_the_command_says_its_results_as_json_and_ends_when_told(manifest, video, tmp_path):
    environment = {**os.environ, "AGSEG_HOME": str(tmp_path / "home"), "LANG": "C"}
    base = [
        sys.executable,
        "-m",
        "agseg",
        "classify-us",
        "--weights",
        "random-planes",
        "--manifest",
        str(manifest),
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [*base, str(video), "-o", str(tmp_path / "j"), "--json"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "j/run.json").read_text())
    assert b"ZEBEDEE" not in done.stdout + done.stderr

    many = []
    for index in range(4):
        path = tmp_path / f"copy{index}.mp4"
        path.write_bytes(video.read_bytes())
        many.append(str(path))
    process = subprocess.Popen([*base, *many * 10, "-o", str(tmp_path / "k")], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "k").glob("*/planes.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    record = json.loads((tmp_path / "k/run.json").read_text())
    statuses = [study["status"] for study in record["studies"]]
    assert len(statuses) == 40
    assert {"done", "deferred"} == set(statuses)
    assert not [path for path in (tmp_path / "k").iterdir() if "tmp" in path.name]


@pytest.mark.shared
def test_the_real_planes_are_right_as_stills_and_as_a_video(shared_data, tmp_path):
    """SonoNet16 on its own example frames: each right as a still, and all in one H.264 video with 5 frames each."""
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest

    truth = ["Abdominal", "Brain (Cb.)", "Femur", "Kidneys", "LVOT", "Profile", "Spine (cor.)"]
    home = tmp_path / "home"
    entry = Manifest.load().entry("sononet16")
    WeightsCache(home, offline=True).add(entry.files[0], shared_data / "weights/sononet/SonoNet16.npz")
    stills = shared_data / "us/sononet_frames"
    frames = []
    for path in sorted(stills.glob("*.tiff")):
        with Image.open(path) as image:
            frames += [np.pad(np.asarray(image.convert("RGB")), ((0, 1), (0, 1), (0, 0)))] * 5
    video = write_video(tmp_path / "planes.mp4", frames)
    report = classify_us(ClassifyRequest((stills, video), tmp_path / "out", home, offline=True, device="cpu"))
    assert report.exit_code is ExitCode.OK
    assert [row["label"] for row in rows_of(tmp_path / "out/sononet_frames")] == truth
    rows = rows_of(tmp_path / "out/planes")
    assert [row["label"] for row in rows] == [name for name in truth for _ in range(5)]
    assert [row["smoothed_label"] for row in rows] == [name for name in truth for _ in range(5)]
    assert {row["state"] for row in rows} == {"plane"}
    assert sorted(json.loads((tmp_path / "out/planes/planes.json").read_text())) == sorted(truth)
