"""Optional packages: each is in the extra that its error names."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agseg.batch.outcome import failure_of
from agseg.extras import EXTRA_OF, MissingPackageError, is_installed, require

ROOT = Path(__file__).parents[1]


def test_every_package_is_a_requirement_of_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in EXTRA_OF.items():
        # Distributed brings dask itself.
        name = {"dask": "distributed"}.get(package, package)
        required = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
        assert canonicalize_name(name) in required, package


@pytest.mark.parametrize("package", EXTRA_OF)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert not is_installed(package)
    with pytest.raises(MissingPackageError, match=f"drawing needs the package {package}") as caught:
        require(package, purpose="drawing")
    assert caught.value.hint == f"pip install 'agseg[{EXTRA_OF[package]}]'"
    # A record has no hints: the command is in its sentence.
    assert "pip install" in failure_of(caught.value, None).message


def test_what_is_there_is_imported() -> None:
    assert require("matplotlib.figure", purpose="a picture").__name__ == "matplotlib.figure"
    assert is_installed("matplotlib")


def test_no_module_writes_its_own_command() -> None:
    own = [path for path in (ROOT / "agseg").rglob("*.py") if "pip install 'agseg[" in path.read_text()]
    assert [path.name for path in own] == ["extras.py"]
