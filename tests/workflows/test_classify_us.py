"""classify-us end to end, with a small network of random weights: what is written, what is not, and how runs end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from agseg.batch import Limits, Part, claim_output, run_batch
from agseg.errors import Code, ExitCode, UsageError, WeightsError
from agseg.io.video.clips import open_clip
from agseg.report import StudyStatus, clip_facts
from agseg.ultrasound.draw import draw_timeline
from agseg.ultrasound.timeline import PLANES
from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest
from agseg.workflows.classify_us import ClassifyRequest, classify_us, clip_job
from agseg.workflows.clip_processor import ClassifierConfig
from tests.ultrasound.plane_weights import NAME, write_plane_weights
from tests.ultrasound.scans import PATIENT, clip_of, fan_frame, write_cine, write_video
from tests.workflows.quick_clips import QuickConfig

FILE_AND_BOX = ["file", "x0", "y0", "x1", "y1"]

pytest.importorskip("av")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_plane_weights(tmp_path_factory.mktemp("site"))


@pytest.fixture
def ask(manifest, tmp_path):
    def ask(*inputs, **options):
        given = {"output": tmp_path / "out", "home": tmp_path / "home", "manifest": manifest, "weights": NAME}
        return ClassifyRequest(tuple(inputs), **{**given, "offline": True, "device": "cpu", **options})

    return ask


@pytest.fixture
def run(ask):
    return lambda *inputs, **options: classify_us(ask(*inputs, **options))


@pytest.fixture
def run_quickly(run, monkeypatch):
    """Runs without a network, where the network does not matter."""
    monkeypatch.setattr("agseg.workflows.classify_us.ClassifierConfig", QuickConfig)
    return run


def statuses(report):
    return {study.input: study.status.value for study in report.studies}


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
        "report.html",
        *(f"scan/{name}" for name in ("study.json", "frames.csv", "planes.json", "timeline.png", "annotated.mp4")),
        "scan/best/Femur.png",
        "scan/attention/Femur.png",
    }
    rows = rows_of(out / "scan")
    assert list(rows[0]) == ["frame", "time_s", "label", "probability", "smoothed_label", "state", *PLANES, *FILE_AND_BOX]
    assert [int(row["frame"]) for row in rows] == list(range(11))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([0.04 * i for i in range(11)], abs=1e-3)
    for row in rows:
        assert sum(float(row[name]) for name in PLANES) == pytest.approx(1, abs=1e-4)
        assert row["state"] in ("plane", "background", "unsure")
        assert row["file"] == "scan.mp4"
    planes = json.loads((out / "scan/planes.json").read_text())
    femur = planes["Femur"]
    x0, y0, x1, y1 = femur["box"]
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 240
    best = max(rows, key=lambda row: float(row["Femur"]))
    assert femur["probability"] == pytest.approx(float(best["Femur"]), abs=1e-6)
    assert [int(rows[femur["frame"]][edge]) for edge in FILE_AND_BOX[1:]] == femur["box"]
    assert all(row["x0"] for row in rows if row["state"] == "plane")
    record = json.loads((out / "run.json").read_text())
    assert record["schema"] == "agseg.run/2"
    assert record["weights"]["id"] == "random-planes"
    assert record["studies"][0]["frames"] == 11
    assert sorted(record["studies"][0]["files"]) == sorted(files_below(out / "scan"))


@pytest.mark.slow
def test_the_annotated_video_has_every_frame_at_its_time(run, tmp_path):
    import av

    times = [0, 40, 200, 230, 900]
    source = write_video(tmp_path / "vfr.mkv", frames_of(5), times_ms=times)
    run(source, annotated=True)
    with av.open(str(tmp_path / "out/vfr/annotated.mp4")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx([t / 1000 for t in times], abs=2e-3)


@pytest.mark.slow
def test_every_nth_frame_is_that_of_the_whole(run, video, tmp_path):
    run(video)
    whole = {row["frame"]: row for row in rows_of(tmp_path / "out/scan")}
    run(video, step=3, output=tmp_path / "some")
    some = rows_of(tmp_path / "some/scan")
    assert [row["frame"] for row in some] == ["0", "3", "6", "9"]
    for row in some:
        assert row["time_s"] == whole[row["frame"]]["time_s"]
        assert float(row["Femur"]) == pytest.approx(float(whole[row["frame"]]["Femur"]), abs=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_crop_overrides_the_fan(run, video, tmp_path):
    report = run(video, crop=(100, 50, 220, 150))
    assert report.studies[0].extra["views"] == ["given"]
    with Image.open(tmp_path / "out/scan/best/Femur.png") as image:
        shown = np.asarray(image)
    outside = np.ones(shown.shape[:2], bool)
    outside[50:150, 100:220] = False
    assert not shown[outside].any()
    assert shown[~outside].any()


@pytest.mark.slow
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


@pytest.mark.slow
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
    if clip.id == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return open_clip(clip)


def draw_or_fail(timeline):
    """Draws no timeline of four frames."""
    if len(timeline.indices) == 4:
        raise ZeroDivisionError(PATIENT)
    return draw_timeline(timeline)


@dataclass(frozen=True)
class Troubled:
    """A classifier whose decoder crashes, or whose drawing has a bug."""

    config: ClassifierConfig

    def __call__(self):
        import agseg.workflows.clip_classifier as module

        module.draw_timeline = draw_or_fail
        return replace(self.config, open_source=open_or_crash)()


@pytest.fixture
def run_troubled(ask, manifest):
    def run(*inputs):
        request = ask(*inputs)
        entry = Manifest.load(manifest).entry(NAME)
        job = clip_job(request, entry, WeightsCache(request.home, offline=True).ensure(entry))
        with claim_output(request.output) as output:
            return run_batch(replace(job, model=Troubled(job.model)), output)

    return run


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_only_its_clip(run_troubled, video, tmp_path):
    crash = tmp_path / "crash.mp4"
    crash.write_bytes(video.read_bytes())
    report = run_troubled(crash, video)
    assert statuses(report) == {"crash": "failed", "scan": "done"}
    assert report.studies[0].code is Code.CRASHED
    assert "SIGSEGV" in report.studies[0].message
    assert report.exit_code is ExitCode.SOME_NOT_DONE
    assert not (tmp_path / "out/crash").exists()


@pytest.mark.slow
def test_a_bug_in_one_clip_costs_only_that_clip_and_is_called_one(run_troubled, video, tmp_path):
    report = run_troubled(video, write_video(tmp_path / "other.mp4", frames_of(4)))
    assert statuses(report) == {"other": "failed", "scan": "done"}
    assert report.exit_code is ExitCode.BUG
    assert PATIENT not in json.dumps(report.to_dict())


@pytest.mark.slow
def test_nothing_to_do_and_impossible_wishes(run, video, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert run(tmp_path / "nothing").exit_code is ExitCode.NO_STUDY
    with pytest.raises(UsageError):
        run(tmp_path / "missing.mp4")
    with pytest.raises(UsageError):
        run(video, crop=(5, 5, 5, 9))
    with pytest.raises(WeightsError):
        classify_us(ClassifyRequest((video,), tmp_path / "out", tmp_path / "home", offline=True, device="cpu"))


@pytest.mark.slow
def test_a_folder_without_a_clip_says_what_was_there(manifest, tmp_path):
    (tmp_path / "in").mkdir()
    write_cine(tmp_path / "in" / "scan.dcm", np.zeros((1, 8, 8), np.uint8), photometric="MONOCHROME2", Modality="CT")
    command = [sys.executable, "-m", "agseg", "classify-us", "in", "-o", "out", "--weights", NAME, "--manifest", str(manifest)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith("no clip found in in: expected videos, ultrasound DICOM or images, found 1 other file")
    assert "1 E_MODALITY" in done.stderr
    assert subprocess.run([*command, "-q"], cwd=tmp_path, capture_output=True, text=True).stderr == ""


@pytest.mark.slow
def test_what_is_done_is_not_done_again_until_something_changes(run_quickly, video, tmp_path):
    first = run_quickly(video)
    record, (done,) = (tmp_path / "out/scan/study.json").read_bytes(), first.studies
    again = run_quickly(video)
    assert again.exit_code is ExitCode.OK
    assert statuses(again) == {"scan": "skipped"}
    assert again.run_id != first.run_id
    assert again.studies[0].run == first.run_id
    assert clip_facts(again.studies[0].extra) == clip_facts(done.extra) != {}
    assert (tmp_path / "out/scan/study.json").read_bytes() == record
    assert statuses(run_quickly(video, step=2)) == {"scan": "done"}
    assert [row["frame"] for row in rows_of(tmp_path / "out/scan")] == ["0", "2", "4", "6", "8", "10"]
    assert statuses(run_quickly(video, step=2, overwrite=True)) == {"scan": "done"}
    write_video(video, frames_of(5))
    assert statuses(run_quickly(video, step=2)) == {"scan": "done"}
    assert len(rows_of(tmp_path / "out/scan")) == 3
    assert statuses(run_quickly(video, step=2)) == {"scan": "skipped"}


@pytest.mark.slow
def test_an_output_that_is_asked_for_later_is_made_and_stays(run_quickly, video, tmp_path):
    run_quickly(video)
    assert statuses(run_quickly(video, annotated=True)) == {"scan": "done"}
    assert (tmp_path / "out/scan/annotated.mp4").stat().st_size > 0
    assert statuses(run_quickly(video)) == {"scan": "skipped"}
    assert (tmp_path / "out/scan/annotated.mp4").exists()
    run_quickly(video, overwrite=True)
    assert not (tmp_path / "out/scan/annotated.mp4").exists()


@pytest.mark.slow
def test_no_picture_of_an_earlier_result_stays(run_quickly, video, tmp_path):
    run_quickly(video, crop=(60, 30, 260, 230))
    assert files_below(tmp_path / "out/scan/best") == {"Kidneys.png"}
    run_quickly(video)
    assert files_below(tmp_path / "out/scan/best") == {"Femur.png"}


@pytest.mark.slow
def test_the_result_of_a_clip_that_is_now_broken_steps_aside(run_quickly, video, tmp_path):
    run_quickly(video)
    before, content = (tmp_path / "out/scan/planes.json").read_bytes(), video.read_bytes()
    video.write_bytes(b"no video any more")
    report = run_quickly(video)
    assert statuses(report) == {"scan": "rejected"}
    (aside,) = (tmp_path / "out/scan").iterdir()
    assert aside.name == report.studies[0].extra["outdated"]
    assert (aside / "planes.json").read_bytes() == before
    video.write_bytes(content)
    assert statuses(run_quickly(video)) == {"scan": "done"}
    assert (tmp_path / "out/scan/planes.json").read_bytes() == before


@pytest.mark.slow
def test_the_result_of_other_weights_steps_aside(run_quickly, video, manifest, tmp_path):
    run_quickly(video)
    text = manifest.read_text()
    other = manifest.with_name("other.yaml")
    other.write_text(text.replace(f"{NAME}:", "other-planes:"))
    run_quickly(video, manifest=other, weights="other-planes")
    (aside,) = (tmp_path / "out/scan").glob("earlier-*")
    assert json.loads((aside / "study.json").read_text())["weights"]["id"] == NAME
    assert json.loads((tmp_path / "out/scan/study.json").read_text())["weights"]["id"] == "other-planes"


@pytest.mark.slow
def test_parts_of_a_run_share_the_clips_and_write_one_record(run_quickly, video, tmp_path):
    clips = [tmp_path / f"copy{number}.mp4" for number in range(4)]
    for clip in clips:
        clip.write_bytes(video.read_bytes())
    reports = [run_quickly(*clips, step=5, part=Part(index, 2)) for index in range(2)]
    assert reports[0].run_id == reports[1].run_id
    did = [{study.input for study in report.studies if study.run == report.run_id} for report in reports]
    assert not did[0] & did[1]
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert {study["input"]: study["status"] for study in record["studies"]} == {f"copy{n}": "done" for n in range(4)}


@pytest.mark.slow
def test_a_clip_that_still_arrives_and_one_after_the_deadline_wait(run_quickly, video, tmp_path):
    young = run_quickly(video, limits=Limits(min_age_s=3600))
    assert [(study.status.value, study.code) for study in young.studies] == [("deferred", Code.CHANGED)]
    late = run_quickly(video, limits=Limits(deadline_s=0))
    assert [(study.status.value, study.code) for study in late.studies] == [("deferred", Code.DEADLINE)]
    assert late.exit_code is ExitCode.DEADLINE
    assert not (tmp_path / "out/scan").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(run, video, tmp_path):
    report = run(video, dry_run=True)
    assert statuses(report) == {"scan": "deferred"}
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_page_shows_planes_with_the_files_of_their_frames(run, video, tmp_path):
    (tmp_path / "stills").mkdir()
    for number, pixels in enumerate(frames_of(3)):
        Image.fromarray(pixels).save(tmp_path / f"stills/plane-{number}.png")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    run(video, tmp_path / "stills", tmp_path / "broken.mp4")
    assert [row["file"] for row in rows_of(tmp_path / "out/stills")] == [f"plane-{number}.png" for number in range(3)]
    page = (tmp_path / "out/report.html").read_text()
    best = json.loads((tmp_path / "out/stills/planes.json").read_text())["Femur"]
    assert best["file"] == f"plane-{best['frame']}.png"
    assert f">{best['file']}</td>" in page
    assert ">scan.mp4</td>" in page
    assert "no known format" in page or "not a video" in page
    assert page.count("data:image/jpeg;base64") == 4  # a timeline and the best frame of each clip
    assert "Ultrasound planes" in page
    assert "Volumes" not in page
    shown = page.split('id="planes"')[1].split("</table>")[0]
    run(video, tmp_path / "stills", tmp_path / "broken.mp4")
    again = (tmp_path / "out/report.html").read_text().split('id="planes"')[1].split("</table>")[0]
    assert again == shown.replace(">done<", ">done earlier<").replace("s-done", "s-skipped").replace('"done"', '"skipped"')


@pytest.mark.slow
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
            assert not re.search(rb"ZEBEDEE|(?<![\w.])4711(?!\w)", path.read_bytes()), path
    assert "ZEBEDEE" not in json.dumps(report.to_dict())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(ask, manifest, tmp_path):
    """Frames alive at once stay few, however long the clip is."""
    import gc

    from agseg.io.video.frames import Frame

    request, entry = ask(), Manifest.load(manifest).entry(NAME)
    config = clip_job(request, entry, WeightsCache(request.home, offline=True).ensure(entry)).model
    source = open_clip(clip_of("long", write_video(tmp_path / "long.mp4", frames_of(10) * 4)))
    alive = []

    def progress(_done, _total):
        alive.append(sum(isinstance(item, Frame) for item in gc.get_objects()))

    (tmp_path / "long").mkdir()
    config().classifier.classify(source, tmp_path / "long", names=["long.mp4"], progress=progress)
    assert len(alive) == 5
    assert max(alive) <= 18


@pytest.mark.slow
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
    while not list((tmp_path / "k").glob("copy*/study.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    record = json.loads((tmp_path / "k/run.json").read_text())
    statuses = [study["status"] for study in record["studies"]]
    assert len(statuses) == 40
    assert {"done", "deferred"} == set(statuses)
    assert not [path for path in (tmp_path / "k").iterdir() if "tmp" in path.name]


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_planes_are_right_as_stills_and_as_a_video(shared_data, tmp_path):
    """SonoNet16 on its own example frames: each right as a still, and all in one H.264 video with 5 frames each."""
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
