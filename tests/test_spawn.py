"""The child that is started before the command line is read: when, for whom, and that it never outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agseg import spawn
from agseg.__main__ import MODEL_IMPORTS, expected_imports
from agseg.batch.crew import Crew
from agseg.threads import THREADS
from tests.batch.fakes import job

SEGMENT = MODEL_IMPORTS["segment"]
HARMLESS = "colorsys"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    spawn.end_ahead()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("segment studies", SEGMENT),
        ("segment studies -o new --organ liver", SEGMENT),
        ("segment --output=new studies", SEGMENT),
        ("segment studies -o done", None),
        ("segment studies --output done", None),
        ("segment --output=done studies", None),
        ("segment studies --dry-run", None),
        ("segment --help", None),
        ("segment studies --cluster local", None),
        ("segment studies --cluster=local", None),
        ("segment studies -o done --overwrite", SEGMENT),
        ("inspect segment", None),
        ("weights list", None),
        ("--version", None),
        ("", None),
    ],
)
def test_a_model_process_is_expected_where_there_is_likely_a_study_to_do(
    words: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "run.json").touch()
    assert expected_imports(words.split()) == expected


def test_the_default_output_of_an_earlier_run_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agseg-out").mkdir()
    (tmp_path / "agseg-out" / "run.json").touch()
    assert expected_imports(["segment", "studies"]) is None


def test_it_is_taken_once() -> None:
    spawn.start_ahead(HARMLESS, debug=False)
    first = spawn.take_ahead(debug=False)
    assert first is not None
    assert spawn.take_ahead(debug=False) is None
    spawn.kill(first.process)
    first.process.wait(timeout=30)
    os.close(first.descriptor)


def test_who_wants_to_see_what_it_prints_does_not_get_one_that_is_mute() -> None:
    spawn.start_ahead(HARMLESS, debug=False)
    assert spawn.take_ahead(debug=True) is None
    assert spawn.take_ahead(debug=False) is not None or pytest.fail("it is still there for others")


@pytest.mark.slow
def test_the_model_process_of_a_run_is_the_one_that_was_started_ahead(tmp_path: Path) -> None:
    spawn.start_ahead(HARMLESS, debug=False)
    ahead = spawn._ahead
    assert ahead is not None
    crew = Crew(job(tmp_path))
    try:
        crew.need_readers(1)
        crew.need_model()
        assert crew.model is not None
        assert crew.model.process.pid == ahead.process.pid
        assert all(reader.process.pid != ahead.process.pid for reader in crew.readers)
        assert crew.model.receive()["kind"] == "ready"
    finally:
        for worker in crew.all():
            worker.end(at_once=True)


def test_one_that_has_died_is_not_given_out() -> None:
    spawn.start_ahead(HARMLESS, debug=False)
    child = spawn._ahead
    assert child is not None
    child.process.kill()
    child.process.wait(timeout=30)
    assert spawn.take_ahead(debug=False) is None


def test_nobody_took_it_so_it_ends() -> None:
    spawn.start_ahead(HARMLESS, debug=False)
    child = spawn._ahead
    assert child is not None
    spawn.end_ahead()
    assert child.process.returncode is not None
    assert spawn.take_ahead(debug=False) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's word is Linux's")
def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from agseg import spawn; spawn.start_ahead('colorsys', debug=False);"
        "print(spawn._ahead.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        # From its first steps on it is bound to the parent; before, it looks whether the parent is still there.
        parent.send_signal(signal.SIGKILL)
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_command_that_ends_early_leaves_no_process(tmp_path: Path) -> None:
    """It was started for ``segment``, and the command line is wrong."""
    command = [sys.executable, "-m", "agseg", "segment", "studies", "--no-such-option"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 2
    # Its children inherit its folder, and nobody else is there: other tests run beside this one and have such children.
    assert not list(processes_in(tmp_path))


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                yield process


@pytest.mark.parametrize("own", [{}, dict.fromkeys(THREADS, "user's")], ids=["nothing said", "the user's own"])
def test_children_learn_how_threads_wait_unless_the_user_says_it(own: dict[str, str], tmp_path: Path) -> None:
    """What a child of the command sees, started where the command starts its own."""
    program = (
        "import os, sys; from agseg import __main__ as command; sys.argv = ['agseg', '--version']\n"
        "try: command.main()\n"
        "except SystemExit: pass\n"
        "print(os.popen('env').read())"
    )
    around = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run([sys.executable, "-c", program], env=around | own, capture_output=True, text=True, check=True)
    assert {f"{name}={value}" for name, value in (own or THREADS).items()} <= set(done.stdout.splitlines())
