"""What a site has imported: entries of its own, one manifest each, beside the weights cache.

::

    HOME/manifest.d/<id>.yaml                      merged over the packaged manifest, in order of the name
    HOME/weights/imported/<id>-<8 hex>/            the files of the entry
"""

from __future__ import annotations

from pathlib import Path


def site_manifest(home: Path, weights_id: str) -> Path:
    """The manifest of one imported entry."""
    return home / "manifest.d" / f"{weights_id}.yaml"


def site_manifests(home: Path) -> tuple[Path, ...]:
    """The manifests of all imported entries, in order of the name."""
    return tuple(sorted(path for path in (home / "manifest.d").glob("*.yaml") if not path.name.startswith(".")))


def imported_folder(home: Path) -> Path:
    """Where the files of imported entries are."""
    return home / "weights" / "imported"
