"""Entries that only one site has (imported models, with their parts) in a bundle for another site."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from agseg.errors import Code, WeightsError
from agseg.io.atomic import make_folder
from agseg.weights.bundle import Bundle
from agseg.weights.entry import WeightsEntry
from agseg.weights.files import SourceKind
from agseg.weights.manifest import Manifest
from agseg.weights.site import imported_folder, site_manifest
from agseg.workflows.import_model import ImportRequest, register


def manifest_for_bundle(entry: WeightsEntry, home: Path) -> str | None:
    """The manifest of an entry that this site imported, or None where every agseg knows the entry."""
    path = site_manifest(home, entry.id)
    if path.is_file() and all(file.source.kind is SourceKind.LOCAL for file in entry.files):
        return path.read_text(encoding="utf-8")
    return None


def take_entries(bundle: Bundle, home: Path, *, as_id: str | None = None) -> tuple[WeightsEntry, ...]:
    """Register the bundle's own entries here, with their files; each is checked as an import is, or leaves nothing behind.

    Raises
    ------
    UsageError
        If an entry does not hold together, or agseg itself has one of its name.
    WeightsError
        ``E_WEIGHTS_CHECKSUM`` if a file is damaged or not in the bundle.
    """
    taken = []
    for weights_id, text in bundle.entries.items():
        if as_id in (None, weights_id):
            taken.append(_take(bundle, home, weights_id, text))
    return tuple(taken)


def _take(bundle: Bundle, home: Path, weights_id: str, text: str) -> WeightsEntry:
    request = ImportRequest(source=bundle.path, as_id=weights_id, home=home)
    Manifest.check(text, site_manifest(home, weights_id))
    content: dict[str, Any] = yaml.safe_load(text)
    if list(content.get("entries", {})) != [weights_id]:
        raise WeightsError("the bundle describes other weights than it names", path=bundle.path, value=weights_id)
    entry = content["entries"][weights_id]
    held = {file.sha256: file for file in bundle.files}
    folder = make_folder(make_folder(imported_folder(home)) / f"{weights_id}-{secrets.token_hex(4)}")
    try:
        for file in entry["files"]:
            if file.get("sha256") not in held:
                raise WeightsError(
                    f"the bundle lacks {file['filename']} of {weights_id}", code=Code.WEIGHTS_CHECKSUM, path=bundle.path
                )
            bundle.extract(held[file["sha256"]], folder / Path(file["filename"]).name)
        return register(entry, request, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
