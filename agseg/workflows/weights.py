"""List, fetch, check, bring in and take out trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agseg.errors import Code, UsageError, WeightsError
from agseg.weights.bundle import Bundle, BundledFile, is_bundle, write_bundle
from agseg.weights.cache import FileState, WeightsCache
from agseg.weights.digest import Digest, short
from agseg.weights.entry import WeightsEntry
from agseg.weights.files import SourceKind, WeightsFile
from agseg.weights.manifest import MANIFEST_SCHEMA, Manifest
from agseg.weights.published import PublishedModel


@dataclass(frozen=True)
class Checked:
    """One file after :func:`verify_weights`."""

    id: str
    filename: str
    state: FileState

    def to_dict(self) -> dict[str, Any]:
        """As ``verify --json`` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Imported:
    """One file after :func:`import_weights`: the entry it belongs to, and how many of that entry's files are still missing."""

    id: str
    filename: str
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """As ``import --json`` prints it."""
        return asdict(self)


def summaries(manifest: Manifest, cache: WeightsCache) -> list[dict[str, Any]]:
    """One dictionary per entry, those not fetched included; the keys of ``agseg weights list --json``."""
    return [
        {
            "id": entry.id,
            "architecture": entry.architecture,
            "organs": list(entry.labels.names or entry.classes),
            "modality": entry.input.modality,
            "licence": entry.licence,
            "size_bytes": cache.with_recorded_digests(entry).size_bytes,
            "available": cache.available(entry),
            "default_for": list(entry.default_for),
        }
        for entry in manifest.entries
    ] + [
        {
            "id": model.id,
            "architecture": "nnunet",
            "organs": list(model.organs),
            "modality": model.modality,
            "licence": f"{model.licence} ({model.licence_class})",
            "size_bytes": None,
            "available": False,
            "default_for": [],
        }
        for model in manifest.published.values()
        if model.id not in manifest.by_id
    ]


def describe_published(model: PublishedModel, cache: WeightsCache) -> dict[str, Any]:
    """Everything that is known about a published model before it is fetched."""
    content = asdict(model)
    for archive, described in zip(model.archives, content["archives"], strict=True):
        record = cache.trust.get(archive.file)
        described["sha256"] = archive.sha256 or (record.sha256 if record else None)
    return {**content, "available": False}


def describe(entry: WeightsEntry, cache: WeightsCache) -> dict[str, Any]:
    """Everything about one entry, the digests that a first fetch found included."""
    known = cache.with_recorded_digests(entry)
    missing = {file.filename for file in cache.missing(entry)}
    return {
        "id": entry.id,
        "architecture": entry.architecture,
        "config": entry.config,
        "format": entry.format,
        "sha256": known.sha256,
        "size_bytes": known.size_bytes,
        "available": not missing,
        "files": [
            {
                "filename": file.filename,
                "sha256": file.sha256,
                "md5": file.md5,
                "size_bytes": file.size_bytes,
                "source": {key: value for key, value in asdict(file.source).items() if value is not None},
                "available": file.filename not in missing,
            }
            for file in known.files
        ],
        "input": asdict(entry.input),
        "labels": {str(label.index): label.name for label in entry.labels},
        "classes": list(entry.classes),
        "cleanup": dict(entry.cleanup),
        "default_for": list(entry.default_for),
        "scores": entry.scores,
        "learned": None
        if entry.learned is None
        else [{"dataset": one.dataset, "images": len(one.images.split()) or None} for one in entry.learned],
        "licence": entry.licence,
        "attribution": entry.attribution,
        "citation": entry.citation,
        "intended_use": entry.intended_use,
        "caution": entry.caution,
    }


def fetch_weights(manifest: Manifest, cache: WeightsCache, ids: Sequence[str], *, everything: bool = False) -> tuple[str, ...]:
    """Fetch what is missing of these entries (or of all) and check it; returns their ids.

    Raises
    ------
    UsageError
        If no entry is named, or one that does not exist.
    WeightsError
        If a file cannot be had, or is another than the manifest says.
    """
    if bool(ids) == everything:
        raise UsageError("name the weights to fetch, or give --all", hint="List them: agseg weights list")
    wanted = tuple(manifest.by_id) if everything else tuple(ids)
    for weights_id in wanted:
        if weights_id in manifest.published and weights_id not in manifest.by_id:
            from agseg.workflows.fetch_published import fetch_published

            fetch_published(manifest.published[weights_id], cache, home=cache.root.parent)
        else:
            cache.fetch(manifest.entry(weights_id))
    return wanted


def pin_weights(manifest: Manifest, cache: WeightsCache, weights_id: str) -> dict[str, Any]:
    """What a manifest must say so that these weights are bound to the bytes that are here.

    Raises
    ------
    WeightsError
        If something was not fetched yet.
    """
    if weights_id in manifest.published:
        from agseg.workflows.fetch_published import pinned

        return {"schema": MANIFEST_SCHEMA, "models": {weights_id: pinned(manifest.published[weights_id], cache)}}
    entry = cache.with_recorded_digests(manifest.entry(weights_id))
    if any(file.sha256 is None for file in entry.files):
        raise WeightsError("not fetched yet: the digest is not known", hint=f"agseg weights fetch {weights_id}")
    files = []
    for file, before in zip(entry.files, manifest.entry(weights_id).files, strict=True):
        record, source = cache.trust.get(before), file.source
        place: dict[str, Any] = {str(source.kind): source.url or source.path}
        if source.kind is SourceKind.HUB:
            revision = record.commit if record and record.commit else source.revision
            place = {"hub": {"repository": source.repository, "revision": revision, "path": source.path}}
        files.append({"filename": file.filename, **place, "sha256": file.sha256, "size_bytes": file.size_bytes})
    return {"schema": MANIFEST_SCHEMA, "entries": {weights_id: {"files": files}}}


def verify_weights(manifest: Manifest, cache: WeightsCache, weights_id: str | None = None) -> tuple[Checked, ...]:
    """Read every file that is here and compare its digest; nothing is fetched."""
    entries = manifest.entries if weights_id is None else (manifest.entry(weights_id),)
    return tuple(Checked(entry.id, file.filename, state) for entry in entries for file, state in cache.verify(entry))


def import_weights(manifest: Manifest, cache: WeightsCache, path: Path, *, as_id: str | None = None) -> tuple[Imported, ...]:
    """Bring a weights file, or a bundle of them, into the cache; files are known by their digest.

    Parameters
    ----------
    as_id
        Only this entry may be meant; otherwise every entry that has the file gets it.

    Raises
    ------
    WeightsError
        ``E_WEIGHTS_CHECKSUM`` if no entry has a file of this digest, or the bundle's bytes are damaged.
    UsageError
        If there is no such file or entry.
    """
    if path.is_dir():
        raise UsageError("this is a folder", path=path, expected="a weights file, or a bundle of `agseg weights export`")
    if not path.is_file():
        raise UsageError("no such weights file", path=path)
    if as_id is None or as_id in manifest.by_id:
        entries = manifest.entries if as_id is None else (manifest.entry(as_id),)
    else:
        entries = () if is_bundle(path) else (manifest.entry(as_id),)
    if not is_bundle(path):
        return _added(cache, entries, path, Digest.of(path), name=path.name)
    done: list[Imported] = []
    with Bundle.open(path) as bundle, cache.scratch() as temporary:
        own: set[str | None] = set()
        if bundle.entries:
            from agseg.workflows.bundled_entries import take_entries

            for entry in take_entries(bundle, cache.root.parent, as_id=as_id):
                done.extend(Imported(entry.id, file.filename, 0) for file in entry.files)
                own.update(file.sha256 for file in entry.files)
        for file in bundle.files:
            if file.sha256 in own:
                continue
            digest = bundle.extract(file, temporary)
            done.extend(_added(cache, entries, temporary, digest, name=file.filename, commit=file.commit))
    return tuple(done)


def export_weights(manifest: Manifest, cache: WeightsCache, ids: Sequence[str], destination: Path) -> tuple[str, ...]:
    """Write the files of these entries into one bundle; what is missing is fetched first. Returns the file names.

    Raises
    ------
    WeightsError
        If a file is missing and cannot be fetched.
    OutputError
        If the bundle cannot be written.
    """
    if not ids:
        raise UsageError("name the weights to export", hint="List them: agseg weights list")
    from agseg.workflows.bundled_entries import manifest_for_bundle

    bundled: list[tuple[BundledFile, Path]] = []
    own: dict[str, str] = {}
    for weights_id in ids:
        entry = manifest.entry(weights_id)
        if (text := manifest_for_bundle(entry, cache.root.parent)) is not None:
            own[weights_id] = text
        for file, path in zip(entry.files, cache.fetch(entry), strict=True):
            record, digest = cache.trust.get(file), Digest.of(path)
            commit = record.commit if record else None
            bundled.append((BundledFile(file.filename, digest.sha256, digest.size_bytes, commit), path))
    write_bundle(destination, bundled, entries=own)
    return tuple(file.filename for file, _ in bundled)


def _added(
    cache: WeightsCache,
    entries: Sequence[WeightsEntry],
    path: Path,
    digest: Digest,
    *,
    name: str,
    commit: str | None = None,
) -> tuple[Imported, ...]:
    homes = [(entry, file) for entry in entries for file in entry.files if _is_same(cache, file, digest)]
    if not homes:
        wanted = entries[0].id if len(entries) == 1 else "any entry of the manifest"
        raise WeightsError(
            f"{name} is no file of {wanted}: its digest is unknown",
            code=Code.WEIGHTS_CHECKSUM,
            value=f"SHA-256 {short(digest.sha256)} ({digest.size_bytes} bytes)",
            hint="Weights of your own need an entry in a manifest of your own: --manifest FILE, see docs/weights.md.",
        )
    for _entry, file in homes:
        if file.source.kind in (SourceKind.HUB, SourceKind.URL):
            cache.add(file, path, commit=commit)
    return tuple(Imported(entry.id, file.filename, len(cache.missing(entry))) for entry, file in homes)


def _is_same(cache: WeightsCache, file: WeightsFile, digest: Digest) -> bool:
    record = cache.trust.get(file)
    return digest.is_of(file, recorded_sha256=record.sha256 if record else None)
