"""``agseg --version``: what to say when something is asked or reported."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from agseg import __version__

COMMIT_FILE = "data/commit.txt"
"""In a wheel that was built from a checkout."""


def version_lines() -> Iterator[str]:
    """The version alone, then the commit, what agseg runs on, and the weights that are here."""
    from agseg.cli import options
    from agseg.errors import AgsegError
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest

    yield f"agseg {__version__}"
    yield f"commit {_commit(Path(__file__).resolve().parents[1]) or 'unknown: no checkout, and none was noted in the wheel'}"
    yield f"Python {platform.python_version()}, torch {_installed('torch')}, numpy {_installed('numpy')}, {platform.platform()}"
    try:
        home = options.home()
        manifest, cache = Manifest.load(home=home), WeightsCache(home, offline=True)
        here = [entry for entry in manifest.entries if cache.available(entry)]
    except (AgsegError, OSError) as error:
        yield f"weights: not known ({type(error).__name__}; agseg doctor says more)"
        return
    yield "weights " + (", ".join(f"{entry.id} {(entry.sha256 or '')[:12]}" for entry in here) or "none")


def _commit(package: Path) -> str | None:
    noted = package / COMMIT_FILE
    if noted.is_file():
        return noted.read_text(encoding="ascii").strip()
    git = shutil.which("git")
    if git is None or not (package.parent / ".git").exists():
        return None
    command = [git, "-C", str(package.parent), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 - the user's own git
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"


def _print(value: bool) -> None:
    if value:
        for line in version_lines():
            typer.echo(line)
        raise typer.Exit


Version = typer.Option(
    "--version", "-V", callback=_print, is_eager=True, help="Print the version, commit, torch and weights, and stop."
)
