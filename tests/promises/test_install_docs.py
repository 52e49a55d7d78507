"""docs/install.md is executed from its first step to its last, in a folder that stands for the machine.

What only root may do (packages, users, services) is noted instead of done; everything else is real: wheels are built, an
environment is made, agseg is installed into it from the wheels alone, asked, upgraded and removed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.promises.conftest import ROOT

PAGE = (ROOT / "docs" / "install.md").read_text()
STEPS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHELL = STEPS[:1]
DEBIAN, RHEL = STEPS[1], STEPS[2]
PREFIXES = ("/opt/agseg", "/srv/agseg", "/usr/local/src", "/etc/agseg", "/etc/bash_completion.d", "/etc/systemd", "/etc/cron.d",
            "/etc/logrotate.d")  # fmt: skip
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("hospital.md", "pacs.md"))
PLACED = sorted(set(re.findall(r"/etc/(?:systemd/system|cron\.d|logrotate\.d)/agseg[\w.-]*", PAGES)))
"""The files of the machine that the other pages have a hospital write."""
NOTED = ("apt-get", "dnf", "useradd", "userdel")

# As root's own would do it, but for the owner.
INSTALL = """#!/bin/sh
for word; do shift; case "$skip$word" in -o|-g) skip=1 ;; 1*) skip= ;; *) set -- "$@" "$word" ;; esac; done
exec {install} "$@"
"""
RUNUSER = '#!/bin/sh\necho "runuser $2" >> "$NOTED"\nshift 3\nexec "$@"\n'
# As systemd's own: a unit that is not installed cannot be stopped, started or disabled.
SYSTEMCTL = """#!/bin/sh
echo "systemctl $@" >> "$NOTED"
for word; do case "$word" in agseg*) [ -e "$UNITS/$word" ] || { echo "$word is not installed" >&2; exit 5; } ;; esac; done
"""
GIT = '#!/bin/sh\necho "git $@" >> "$NOTED"\nmkdir -p "$(dirname "$3")" && exec cp -a "$CHECKOUT" "$3"\n'


@dataclass(frozen=True)
class Machine:
    """Where the steps are run."""

    root: Path
    variables: dict[str, str]

    def run(self, *steps: str) -> str:
        """The steps in one shell, their places moved below the root; what they said."""
        script = "umask 077\n" + "\n".join((*SHELL, *steps))  # a careful root's own, as hardened systems have it
        for prefix in PREFIXES:
            script = script.replace(prefix, f"{self.root}{prefix}")
        done = subprocess.run(["/bin/sh", "-c", script], cwd=self.root, env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, script + done.stdout + done.stderr
        return done.stdout

    @property
    def noted(self) -> list[str]:
        return Path(self.variables["NOTED"]).read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    programs = tmp_path / "programs"
    programs.mkdir()

    def program(name: str, text: str) -> None:
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    for name in NOTED:
        program(name, f'#!/bin/sh\necho "{name} $@" >> "$NOTED"\n')
    program("install", INSTALL.format(install=shutil.which("install")))
    program("runuser", RUNUSER)
    program("git", GIT)
    program("systemctl", SYSTEMCTL)
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    for name in ("python3", "python3.11"):
        program(name, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    source = tmp_path / "source"
    source.mkdir()
    for name in ("agseg", "train", "hatch_build.py", "pyproject.toml", "constraints.txt", "README.md", "LICENSE",
                 "weights_manifest.yaml", "published_models.yaml"):  # fmt: skip
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    variables = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",
        "NOTED": str(tmp_path / "noted"),
        "UNITS": str(units),
        "CHECKOUT": str(source),
        # No network: the other packages, and what builds a wheel, are those of the environment that runs the tests.
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    return Machine(tmp_path, variables)


@pytest.mark.slow
def test_every_step_of_the_installation_works(machine: Machine) -> None:
    user, wheels, sums, program, ready, completion, upgrade, removal = STEPS[3:]
    said = machine.run(DEBIAN, user, wheels, sums, program, ready, completion)
    assert said.count("agseg 0.") == 1
    root = machine.root
    assert "is here and its digests are right" in " ".join(said.split())
    assert not (root / "srv/agseg/out").stat().st_mode & 0o077
    assert (root / "etc/bash_completion.d/agseg").read_text().count("_AGSEG_COMPLETE=complete_bash")
    assert {path.stat().st_mode & 0o005 for path in (root / "opt/agseg").rglob("*") if path.is_dir()} == {0o005}
    assert all(path.stat().st_mode & 0o004 for path in (root / "opt/agseg").rglob("*.py"))
    shutil.copytree(root / "usr/local/src/wheelhouse", root / "usr/local/src/wheelhouse-new")
    for unit in ("agseg-night.timer", "agseg-night.service"):
        (root / "etc/systemd/system" / unit).touch()
    assert machine.run(upgrade).count("agseg 0.") == 1
    (root / "srv/agseg/out/liver.nii.gz").write_bytes(b"mine")
    machine.run(removal)
    assert not (root / "opt/agseg").exists()
    assert (root / "srv/agseg/out/liver.nii.gz").read_bytes() == b"mine"
    first = [note.split()[0] for note in machine.noted]
    assert first[0] == "apt-get"
    assert [note for note in machine.noted if note.startswith(("useradd", "userdel"))] == [
        f"useradd --system --user-group --home-dir {root}/srv/agseg --shell /usr/sbin/nologin agseg",
        "userdel agseg",
    ]
    assert [note for note in machine.noted if note.startswith("systemctl st")] == [
        "systemctl stop agseg-night.timer",
        "systemctl stop agseg-night.service",
        "systemctl start agseg-night.timer",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["", "agseg.", "agseg-night", "agseg-listen", "agseg"])
def test_whatever_a_hospital_has_set_up_is_removed_and_its_data_stay(machine: Machine, which: str) -> None:
    placed = [machine.root / path[1:] for path in PLACED if which and f"/{which}" in path]
    assert bool(placed) == bool(which)
    for path in placed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    result = machine.root / "srv/agseg/out/liver.nii.gz"
    result.parent.mkdir(parents=True)
    result.touch()
    machine.run(STEPS[-1])
    assert [path for path in placed if path.exists()] == []
    disabled = {note.split()[-1] for note in machine.noted if note.startswith("systemctl disable --now")}
    assert disabled == {path.name for path in placed if path.suffix in (".timer", ".service")}
    assert result.exists()


def test_red_hats_python_is_named_with_its_version(machine: Machine) -> None:
    said = machine.run(RHEL, '$PYTHON -c "import sys; print(sys.version_info >= (3, 11))"')
    assert (machine.noted, said) == (["dnf install -y python3.11 git"], "True\n")


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem)
def test_no_page_has_a_hospital_install_a_name_that_anybody_may_take(page: Path) -> None:
    named = re.compile(r"^\s*(?:\S*/)?(?:python\S* -m )?pip (?:install|download) (.*\bagseg\b.*)$", re.MULTILINE)
    typed = [words.partition("#")[0] for words in named.findall(page.read_text())]
    wrong = [words for words in typed if "agseg" in words and "--no-index" not in words and "'.[" not in words]
    assert wrong == []


def test_the_steps_are_in_the_order_of_the_page() -> None:
    assert len(STEPS) == 11
    assert "apt-get" in DEBIAN
    assert "dnf" in RHEL
    assert "userdel" in STEPS[-1]
