"""The wheel holds what a checkout holds, and finds it from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

PROBE = """
import hashlib, json, sys
from pathlib import Path
import agseg
from agseg.io.resources import resource_path
from agseg.weights.manifest import Manifest
train = resource_path("train")
print(json.dumps({
    "package": str(Path(agseg.__file__).resolve().parent),
    "manifest": str(resource_path("weights_manifest.yaml")),
    "manifest_sha256": hashlib.sha256(resource_path("weights_manifest.yaml").read_bytes()).hexdigest(),
    "train": sorted(str(path.relative_to(train)) for path in train.rglob("*") if path.is_file()),
    "entries": [entry.id for entry in Manifest.load().entries],
    "torch": "torch" in sys.modules,
}))
"""


def probe(root: Path) -> dict[str, object]:
    # -P and an empty cwd: nothing but PYTHONPATH decides which agseg is imported.
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE], env=os.environ | {"PYTHONPATH": str(root)}, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_manifest_train_weights_and_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", "train", "agseg"], cwd=CHECKOUT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: the list of tracked files is unknown")
    for path in tracked.stdout.splitlines():
        assert (f"agseg/data/{path}" if path.startswith("train/") else path) in names
    assert "agseg/data/weights_manifest.yaml" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_wheel_and_checkout_find_the_same_files_from_anywhere(installed):
    in_wheel, in_checkout = probe(installed), probe(CHECKOUT)
    assert in_wheel["package"] == str(installed / "agseg")
    assert in_wheel["manifest"] == str(installed / "agseg/data/weights_manifest.yaml")
    assert in_checkout["manifest"] == str(CHECKOUT / "weights_manifest.yaml")
    for key in ("manifest_sha256", "train", "entries"):
        assert in_wheel[key] == in_checkout[key]
    assert in_wheel["entries"]
    assert in_wheel["train"]


def test_the_wheel_knows_the_commit_that_it_was_built_from(wheel):
    git = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    if git.returncode != 0:
        pytest.skip("not a git checkout: there is no commit")
    noted = zipfile.ZipFile(wheel).read("agseg/data/commit.txt").decode().strip()
    assert noted.removesuffix("-dirty") == git.stdout.strip()


def test_the_wheel_names_its_command(installed):
    (entry_points,) = installed.glob("agseg-*.dist-info/entry_points.txt")
    assert "agseg = agseg.__main__:main" in entry_points.read_text()


def test_importing_the_command_line_does_not_import_torch():
    heavy = "torch numpy SimpleITK pydicom rich.table huggingface_hub"
    code = f"import sys, agseg.cli.app; sys.exit(' '.join(n for n in {heavy!r}.split() if n in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("process", "modules", "heavy"),
    [
        ("model", "agseg.workflows.study_segmenter agseg.inference.segment agseg.inference.network", "scipy skimage nibabel"),
        ("reader of NIfTI", "agseg.io.read", "torch scipy nibabel agseg.io.html.page"),
        ("writer", "agseg.workflows.study_writer", "torch scipy nibabel agseg.io.html.page"),
        (
            "parent",
            "agseg.workflows.segment",
            "torch scipy nibabel distributed asyncio jinja2 PIL agseg.io.discover agseg.io.html.page",
        ),
    ],
)
def test_each_process_of_a_run_imports_what_it_uses(process, modules, heavy):
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in ['agseg.batch.child', *{modules!r}.split()]]; "
        f"sys.exit(' '.join(n for n in {heavy + ' SimpleITK pydicom'!r}.split() if n in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.stderr.strip() == "", process
    assert done.returncode == 0
