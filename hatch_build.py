"""Note in a wheel which commit it was built from; ``agseg --version`` says it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds ``agseg/data/commit.txt`` where git, or ``AGSEG_COMMIT``, says what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is built; an editable one has its checkout."""
        commit = os.environ.get("AGSEG_COMMIT") or self._git()
        if version == "editable" or not commit:
            return
        folder = tempfile.mkdtemp(prefix="agseg-commit-")
        self._folder = Path(folder)
        (self._folder / "commit.txt").write_text(commit + "\n", encoding="ascii")
        build_data["force_include"][str(self._folder / "commit.txt")] = "agseg/data/commit.txt"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Afterwards."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _git(self) -> str:
        git = shutil.which("git")
        if git is None or not (Path(self.root) / ".git").exists():
            return ""
        command = [git, "-C", self.root, "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else ""
