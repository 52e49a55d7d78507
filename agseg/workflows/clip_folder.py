"""Where one ultrasound clip's results lie: put into place together, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from agseg.batch.output import make_folders, temporary_name
from agseg.io.atomic import FOLDER_MODE, output_error

__all__ = ["ClipFolder", "mark_outdated"]

_LAST = "planes.json"
"""Written last and removed first: a folder that has it is complete."""

_OUTDATED = "planes.outdated.json"
"""What it is called once its clip could not be classified any more: nothing is lost, and nothing passes as current."""


class ClipFolder:
    """A clip's results, hidden until all of them are on the disk; what a former run wrote is replaced."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self.path = root / temporary_name()

    def __enter__(self) -> ClipFolder:
        try:
            self.path.mkdir(mode=FOLDER_MODE)
        except OSError as error:
            raise output_error(error, "a clip's folder cannot be made") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def publish(self) -> tuple[str, ...]:
        """Move every file into place, the last one last; returns their names."""
        files = sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        files.sort(key=lambda name: name == _LAST)
        target = make_folders(self._root, self._name)
        try:
            (target / _LAST).unlink(missing_ok=True)
            for name in (_OUTDATED, "annotated.mp4", *_pictures(target)):
                if name not in files:
                    (target / name).unlink(missing_ok=True)
            for name in files:
                if "/" in name:
                    make_folders(target, name.rpartition("/")[0])
                (self.path / name).replace(target / name)
        except OSError as error:
            raise output_error(error, "a clip's results cannot be moved into place") from error
        return tuple(files)


def mark_outdated(root: Path, name: str) -> None:
    """Let a clip's earlier result no longer look complete; where there is none, nothing happens."""
    try:
        (root / name / _LAST).replace(root / name / _OUTDATED)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise output_error(error, "a clip's outdated result cannot be set aside") from error


def _pictures(target: Path) -> list[str]:
    """Pictures of a former run: planes that are no longer found must not stay."""
    return [path.relative_to(target).as_posix() for part in ("best", "attention") for path in (target / part).glob("*.png")]
