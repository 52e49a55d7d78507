"""containers/Containerfile, carried out step by step in a folder that stands for the image, and a job run by its entry point.

No container runtime is needed: COPY copies, RUN runs, and what would come from the network is the environment of the tests.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.promises.conftest import ROOT

LINES = (ROOT / "containers" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
STEPS = [(words[0], words[1]) for line in LINES if line and line[0] != "#" for words in [line.split(maxsplit=1)]]
OURS = re.compile(r"(?<![\w.:/])(?=/(?:opt/agseg|etc/holoscan|input|output)\b)")
"""Where a path of the image begins."""


def sources(step: str) -> list[str]:
    return shlex.split(step)[:-1]


@dataclass
class Image:
    """What the steps made, and what they said about it."""

    root: Path
    variables: dict[str, str]
    folder: Path = field(init=False)
    entry: list[str] = field(init=False)

    def here(self, text: str) -> str:
        return OURS.sub(str(self.root), text)

    def do(self, kind: str, words: str) -> None:
        if kind in ("ARG", "ENV"):
            for pair in shlex.split(self.here(words)):
                name, _, value = pair.partition("=")
                self.variables.setdefault(name, value)
        elif kind == "WORKDIR":
            self.folder = Path(self.here(words))
            self.folder.mkdir(parents=True, exist_ok=True)
        elif kind == "COPY":
            to = self.folder / self.here(shlex.split(words)[-1])
            for name in sources(words):
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    to.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, to)
        elif kind == "RUN":
            self.run(["/bin/sh", "-euc", self.here(words)])
        elif kind == "ENTRYPOINT":
            self.entry = [self.here(word) for word in json.loads(words)]

    def run(self, command: list[str], **variables: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.variables | variables, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Image:
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    given = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "AGSEG_COMMIT": "0123456789ab",
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    built = Image(tmp_path / "image", given)
    for kind, words in STEPS:
        built.do(kind, words)
    return built


def test_only_files_that_are_named_get_into_the_image() -> None:
    copied = [name for kind, words in STEPS if kind == "COPY" for name in sources(words)]
    assert copied
    assert [name for name in copied if name in (".", "*") or not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_a_platforms_job_is_done_by_what_the_steps_make(image: Image) -> None:
    assert "0123456789ab" in image.run([image.entry[0], "--version"])
    assert sorted(path.name for path in (image.root / "etc/holoscan").iterdir()) == ["app.json", "pkg.json"]
    assert list((image.root / "opt/agseg/source").iterdir()) == []
    command = json.loads((ROOT / "containers" / "command.json").read_text())
    values = {given["replacement-key"]: given["default-value"] for given in command["inputs"]}
    settings = {name: values[key] for name, key in command["environment-variables"].items()}
    shutil.copytree(ROOT / "examples" / "studies" / "abdomen_dicom", image.root / "input" / "scan")
    image.run([*image.entry, *image.here(command["command-line"]).split()], **settings | {"AGSEG_SEGMENT_ORGAN": "liver"})
    result = json.loads((image.root / "output" / "result.json").read_text())
    assert (result["exit_code"], result["counts"]["done"]) == (0, 1)
    assert {Path(name).name for name in result["dicom"]} == {"seg.dcm", "sr.dcm"}
