"""``agseg weights fetch NAME``: a model that others publish becomes an entry of this site.

licence -> archives (digest, or what the first fetch finds) -> import, several as parts of one entry
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from agseg.errors import WeightsError
from agseg.io.atomic import make_folder
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.nnunet.archive import unpacked
from agseg.weights.nnunet.folder import PARTS_NAME, find_models
from agseg.weights.published import PublishedModel
from agseg.workflows.import_model import ImportRequest, import_model

_LOG = logging.getLogger(__name__)


def fetch_published(model: PublishedModel, cache: WeightsCache, *, home: Path) -> WeightsEntry:
    """Fetch a model's archives and import them under its name.

    Raises
    ------
    WeightsError
        If its licence is not open, an archive cannot be had, or is another than the one recorded; nothing is imported then.
    """
    model.check_fetchable()
    files = [archive.file for archive in model.archives]
    for file in files:
        if file.sha256 is None and cache.trust.get(file) is None:
            _LOG.warning(
                "%s: nobody publishes its digest; this first fetch is unverified, and what it finds binds every later one",
                file.filename,
            )
    archives = [cache.fetch_file(model.id, file) for file in files]
    if len(archives) == 1:
        return import_model(_request(model, archives[0], home))
    scratch = home / "weights" / "partial" / f"{model.id}-parts"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _lay_out(model, archives, make_folder(scratch))
        return import_model(_request(model, scratch, home))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def pinned(model: PublishedModel, cache: WeightsCache) -> dict[str, Any]:
    """The model's archives with the digests that are known, as a manifest has them under ``models``.

    Raises
    ------
    WeightsError
        If an archive was never fetched: nothing is known of it.
    """
    found = []
    for archive in model.archives:
        record = cache.trust.get(archive.file)
        sha256 = archive.sha256 or (record.sha256 if record else None)
        if sha256 is None:
            raise WeightsError(
                f"{archive.file.filename} was not fetched yet: its digest is not known",
                hint=f"agseg weights fetch {model.id}",
            )
        found.append({"url": archive.url, "sha256": sha256, "size_bytes": archive.size_bytes or (record and record.size_bytes)})
    return {"archives": found}


def _request(model: PublishedModel, source: Path, home: Path) -> ImportRequest:
    return ImportRequest(
        source=source,
        as_id=model.id,
        home=home,
        orientation=model.orientation,
        modality=model.modality,
        licence=f"{model.licence} ({model.licence_class})",
        citation=model.citation,
        input=model.input,
        crop_to=model.crop_to,
    )


def _lay_out(model: PublishedModel, archives: list[Path], folder: Path) -> None:
    """Unpack each archive beside the others, with a parts.yaml in the publisher's order."""
    parts: list[dict[str, Any]] = []
    names = list(model.organs)
    for number, archive in enumerate(archives, start=1):
        with unpacked(archive, scratch=folder) as root:
            place = folder / f"part{number}"
            shutil.copytree(root, place)
        found = find_models(place)
        if len(found) != 1:
            raise WeightsError("an archive of a part holds one model", path=archive, value=len(found), expected=1)
        content = json.loads((found[0].path / "dataset.json").read_text(encoding="utf-8"))
        labels = {int(index): str(name) for name, index in content["labels"].items() if index != 0}
        names += [name for name in labels.values() if name not in names]
        parts.append({"model": found[0].path.relative_to(folder).as_posix(), "labels": labels})
    labels_of_all = dict(enumerate(names, start=1))
    text = yaml.safe_dump({"parts": parts, "labels": labels_of_all}, sort_keys=False)
    (folder / PARTS_NAME).write_text(text, encoding="utf-8")
