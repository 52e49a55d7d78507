"""One night of the product, end to end: real processes, odd files, no environment, a network that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests import phantoms
from tests.tiny_weights import write_site_manifest

ROOT = Path(__file__).resolve().parents[2]
SHAPE, SPACING_MM = (44, 36, 24), (3.0, 3.0, 3.5)
HOSTILE = "$(touch pwned); `touch pwned` <script>alert(1)</script>"

# Written into every process of the run: a connection to anything but this machine's own processes is noted and refused.
WATCH = """
import os, socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX:
        with open(os.environ["AGSEG_TEST_CONNECTIONS"], "a") as stream:
            stream.write(repr(address) + chr(10))
        raise OSError("no network in this test")
    return _connect(self, address)
socket.socket.connect = connect
"""


@dataclass(frozen=True)
class Night:
    """What a run was given, and what it said and left."""

    root: Path
    source: Path
    out: Path
    done: subprocess.CompletedProcess[str]
    before: dict[str, tuple[int, int, bytes]]

    @property
    def connections(self) -> str:
        path = self.root / "connections"
        return path.read_text() if path.exists() else ""


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and bytes of every regular file."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def run_agseg(root: Path, *arguments: object, **how: object) -> subprocess.CompletedProcess[str]:
    """The command line with nothing in its environment but what the test needs, from ``/``."""
    environment = {
        "LANG": "C",
        "PYTHONPATH": os.pathsep.join((str(root / "watch"), str(ROOT))),
        "AGSEG_TEST_CONNECTIONS": str(root / "connections"),
        "AGSEG_HOME": str(root / "home"),
    }
    command = [sys.executable, "-m", "agseg", *map(str, arguments)]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300, check=False, **how)  # type: ignore[call-overload]


def prepare(root: Path) -> Path:
    """The watcher and the weights; returns the site's manifest."""
    (root / "watch").mkdir()
    (root / "watch" / "sitecustomize.py").write_text(WATCH)
    return write_site_manifest(root / "site")


def body() -> tuple[np.ndarray, np.ndarray]:
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING_MM)
    return phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine


def write_good(folder: Path, *, series: int = 2) -> list[Path]:
    return phantoms.write_dicom(folder, *body(), series=series)


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Two good studies among everything that must not be touched, followed, opened or believed."""
    root = tmp_path_factory.mktemp("night")
    manifest, source = prepare(root), root / "in"
    write_good(source / "axial")
    codes = phantoms.coded_affine("LPI", SHAPE, SPACING_MM)
    phantoms.write_nifti(source / HOSTILE / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, codes), codes)
    write_good(source / "gap", series=7)[9].unlink()
    secret = root / "secret"
    write_good(secret / "elsewhere", series=8)
    (source / "linked").symlink_to(secret / "elsewhere")
    (source / "axial" / "zz.dcm").symlink_to(next((secret / "elsewhere").iterdir()))
    os.mkfifo(source / "axial" / "pipe")
    with zipfile.ZipFile(source / "slip.zip", "w") as archive:
        archive.writestr("../../pwned", "x")
    (secret / "voxels.raw").write_bytes(bytes(8 * 8 * 8 * 2))
    (source / "escape.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementSpacing = 1 1 1\nOffset = 0 0 0\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_SHORT\nElementDataFile = ../secret/voxels.raw\n"
    )
    whole = (source / HOSTILE / "scan.nii.gz").read_bytes()
    (source / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    before = contents(source)
    done = run_agseg(
        root,
        "segment",
        source,
        "-o",
        root / "out",
        "--manifest",
        manifest,
        "--weights",
        "tiny",
        "--precision",
        "fp32",
        "--verbose",
        umask=0o000,
    )
    return Night(root, source, root / "out", done, before)


@pytest.fixture(scope="session")
def again(night: Night) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Another run with the same input and weights; ``again("--dry-run")``, ``again(out=...)``."""

    def run(*options: object, out: Path | None = None, source: Path | None = None) -> subprocess.CompletedProcess[str]:
        weights = ("--manifest", night.root / "site" / "site.yaml", "--weights", "tiny", "--precision", "fp32")
        return run_agseg(night.root, "segment", source or night.source, "-o", out or night.out, *weights, *options)

    return run
