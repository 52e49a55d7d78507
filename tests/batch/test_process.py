"""A run as the hospital sees it: a process that gets killed, runs twice at once, has no environment and meets a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

from tests.batch.fakes import write_study

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
STUDIES = 4


def command(source: Path, target: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.batch.night", str(source), str(target), *options]


def start(source: Path, target: Path, *options: str, **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(source, target, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )  # type: ignore[call-overload]


def night(source: Path, target: Path, *options: str, **how: object) -> int:
    return subprocess.run(command(source, target, *options), cwd=ROOT, check=False, **how).returncode  # type: ignore[call-overload]


def children_of(process: int) -> list[psutil.Process]:
    return psutil.Process(process).children(recursive=True)


def assert_visible_files_load(target: Path) -> None:
    """Every file that a person or a script would see is whole; a folder with a record has all that the record names."""
    for path in target.rglob("*") if target.exists() else ():
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(target).parts):
            continue
        if path.name.endswith(".nii.gz"):
            np.asarray(nibabel.load(path).dataobj)
        elif path.suffix == ".json":
            record = json.loads(path.read_bytes())
            if path.name == "study.json":
                assert all((path.parent / name).is_file() for name in record["files"])


def masks(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*.nii.gz"))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(STUDIES):
        write_study(tmp_path / "in" / f"case{number}.nii.gz", seed=number)
    return tmp_path / "in"


@pytest.mark.slow
def test_promise_16_kill_9_at_20_random_moments_leaves_nothing_that_fails_to_load(
    source: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    began = time.monotonic()
    assert night(source, tmp_path / "undisturbed") == 0
    whole_s = time.monotonic() - began
    whole = masks(tmp_path / "undisturbed")
    target, interrupted = tmp_path / "out", 0
    for _ in range(KILLS):
        # --overwrite: every round does all the work again, over results that are there.
        process, began = start(source, target, "overwrite=true"), time.monotonic()
        try:
            process.wait(timeout=float(rng.uniform(0.2, 1.0)) * whole_s)
            # The machine has become faster: aim anew, or the kills come after the end.
            whole_s = min(whole_s, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            interrupted += 1
        orphans = children_of(process.pid) if process.poll() is None else []
        process.kill()
        process.communicate()
        psutil.wait_procs(orphans, timeout=5)
        assert not [orphan for orphan in orphans if orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE]
        assert_visible_files_load(target)
    assert interrupted >= KILLS // 4
    assert night(source, target) == 0
    assert masks(target) == whole
    assert not [path for path in target.iterdir() if path.name.startswith(".agseg-tmp") or ".agseg-part" in path.name]


def test_promise_20_a_second_run_on_one_output_exits_6_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "model-hang.nii.gz")
    first = start(tmp_path / "in", tmp_path / "out", "tell=true")
    assert first.stdout is not None
    wait_for(first, *["stage model-hang"] * 2)
    assert night(tmp_path / "in", tmp_path / "out", stderr=subprocess.DEVNULL) == 6
    assert first.poll() is None  # nobody waited for it
    orphans = children_of(first.pid)
    first.kill()
    first.communicate()
    assert not psutil.wait_procs(orphans, timeout=5)[1]
    assert night(tmp_path / "in", tmp_path / "out", 'exclude=["*hang*"]') == 5


def wait_for(process: subprocess.Popen[str], *lines: str) -> None:
    """Until the run has said all of the lines, in any order; one that is given twice must be said twice."""
    assert process.stdout is not None
    missing = list(lines)
    for said in process.stdout:
        if said.strip() in missing:
            missing.remove(said.strip())
        if not missing:
            return
    raise AssertionError(f"the run never said {missing}")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_promise_21_a_signal_ends_the_run_within_10_s_with_its_record(tmp_path: Path, number: int, code: int) -> None:
    for name in ("a", "model-hang", "z"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    process = start(tmp_path / "in", tmp_path / "out", "tell=true")
    # The study before may still be with the writer when this one is in the model.
    wait_for(process, "finished a", *["stage model-hang"] * 3)
    children = children_of(process.pid)
    began = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == code
    assert not psutil.wait_procs(children, timeout=5)[1]
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert record["exit_code"] == code
    assert {study["input"]: (study["status"], study["code"]) for study in record["studies"]} == {
        "a": ("done", None),
        "model-hang": ("deferred", "E_INTERRUPTED"),
        "z": ("deferred", "E_INTERRUPTED"),
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".agseg.lock", "a", "report.html", "run.json", "volumes.csv",
    ]  # fmt: skip


@pytest.mark.slow
def test_promise_27_it_runs_without_an_environment_from_the_root_folder(source: Path, tmp_path: Path) -> None:
    boot = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.batch.night import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", boot, str(source), str(tmp_path / "out")], cwd="/", env={}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(masks(tmp_path / "out")) == STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_promise_30_files_are_0600_and_folders_0700_whatever_the_umask(source: Path, tmp_path: Path, umask: int) -> None:
    assert night(source, tmp_path / "out", umask=umask) == 0
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (tmp_path / "out").rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


@pytest.mark.slow
def test_promise_25_the_input_is_not_touched(source: Path, tmp_path: Path) -> None:
    def seen() -> list[tuple[str, bytes, int, int]]:
        return [
            (path.name, path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in sorted(source.rglob("*"))
        ]

    source.chmod(0o555)
    before = seen()
    assert night(source, tmp_path / "out") == 0
    assert seen() == before
    source.chmod(0o755)


@pytest.mark.slow
def test_promise_22_a_full_disk_is_8_and_leaves_nothing_partial(tmp_path: Path) -> None:
    # A file-size limit gives EFBIG where a full disk gives ENOSPC; both are one thing for a result.
    write_study(tmp_path / "in" / "a.nii.gz")
    write_study(tmp_path / "in" / "big.nii.gz", shape=(256, 256, 200))
    write_study(tmp_path / "in" / "z.nii.gz")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))

    assert night(tmp_path / "in", tmp_path / "out", preexec_fn=limit) == 8
    assert_visible_files_load(tmp_path / "out")
    assert not (tmp_path / "out" / "big").exists()
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert {study["input"]: study["code"] for study in record["studies"]} == {
        "a": None, "big": "E_DISK_FULL", "z": "E_DISK_FULL",
    }  # fmt: skip
    assert night(tmp_path / "in", tmp_path / "out") == 0


@pytest.mark.slow
def test_promise_22_a_truly_full_disk_is_8_and_leaves_nothing_partial(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(mounted)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs to mount a small file system (root)")
    except FileNotFoundError:
        pytest.skip("needs mount")
    try:
        write_study(tmp_path / "in" / "big.nii.gz", shape=(160, 160, 160))
        assert night(tmp_path / "in", mounted / "out") == 8
        assert [path.name for path in sorted((mounted / "out").iterdir())] == [
            ".agseg.lock", "report.html", "run.json", "volumes.csv",
        ]  # fmt: skip
        record = json.loads((mounted / "out" / "run.json").read_bytes())
        assert record["studies"][0]["code"] == "E_DISK_FULL"
        (mounted / "filler").write_bytes(bytes(mounted_free(mounted)))
        assert night(tmp_path / "in", mounted / "other", stderr=subprocess.DEVNULL) == 8
    finally:
        subprocess.run(["umount", str(mounted)], check=False)


def mounted_free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_bsize


@pytest.mark.slow
def test_promise_33_hostile_names_are_names(tmp_path: Path) -> None:
    names = [
        "$(touch pwned)",
        "; touch pwned",
        "`touch pwned`",
        "--help",
        "-o",
        "new\nline",
        "a'b\"c",
        "<script>",
        "=1+1",
    ]
    for number, name in enumerate(names):
        write_study(tmp_path / "in" / name / "ct.nii.gz", seed=number)
    raw = os.fsencode(tmp_path / "in") + b"/latin-\xe9"
    Path(os.fsdecode(raw)).mkdir()
    write_study(tmp_path / "plain.nii.gz").rename(os.fsdecode(raw + b"/ct.nii.gz"))
    assert night(tmp_path / "in", tmp_path / "out") == 0
    assert len(masks(tmp_path / "out")) == len(names) + 1
    assert not list(tmp_path.rglob("pwned"))
    assert not list(ROOT.glob("pwned"))
    assert "<script>/" not in (tmp_path / "out" / "report.html").read_text().replace("<script>\n", "")


def test_promise_31_links_are_not_followed_into_or_out_of_the_output(source: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case0").symlink_to(elsewhere)
    (tmp_path / "out" / "volumes.csv").symlink_to(elsewhere / "volumes.csv")
    (source / "linked.nii.gz").symlink_to(source / "case1.nii.gz")
    assert night(source, tmp_path / "out", stderr=subprocess.DEVNULL) == 8
    assert not list(elsewhere.iterdir())


def test_promise_23_unwritable_output_is_8_before_any_model_is_loaded(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = subprocess.run(
        command(source, tmp_path / "file", "tell=true"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert done.stdout == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_promise_23_a_folder_without_the_right_to_write_is_8(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    for target in (tmp_path / "out", tmp_path / "out" / "below"):
        done = subprocess.run(command(source, target, "tell=true"), cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (8, "")


@pytest.mark.slow
def test_promise_26_memory_is_flat_over_200_studies(tmp_path: Path) -> None:
    for number in range(200):
        write_study(tmp_path / "in" / f"case{number:03}.nii", seed=number, shape=(48, 48, 48))
    process = start(tmp_path / "in", tmp_path / "out", "tell=true", 'limits={"readers": 1}')
    assert process.stdout is not None
    finished, sizes = 0, []
    for line in process.stdout:
        if line.startswith("finished"):
            finished += 1
            running = [psutil.Process(process.pid), *children_of(process.pid)] if finished % 10 == 0 else []
            if running:
                sizes.append((finished, sum(each.memory_info().rss for each in running)))
    assert process.wait() == 0
    assert finished == 200
    settled = [(number, size) for number, size in sizes if 30 <= number < 200]
    slope = np.polyfit([number for number, _ in settled], [size for _, size in settled], 1)[0]
    print(f"{finished} studies, slope {slope / 1024:.1f} KiB per study, from {settled[0][1] >> 20} MiB")
    # One volume that is not given back, in any of the processes, is 216 KiB per study.
    assert slope < 40 * 1024
