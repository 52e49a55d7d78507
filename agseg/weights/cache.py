"""Weights cache: files by digest, checked before each first load in a process, complete or not there.

::

    HOME/weights/blobs/<sha256>                    files as published
    HOME/weights/native/<sha256>.safetensors       foreign files converted, with <sha256>.json: the digest of the conversion
    HOME/weights/trust/<key>.json                  what the first fetch of a file without published SHA-256 found
    HOME/weights/partial/<key>                     downloads in progress; interrupted ones are taken up again
    HOME/weights/locks/<key>.lock                  one process at a time per file

Packaged files and a site's own are checked and read where they are. Reading from a complete cache writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import agseg
from agseg.errors import Code, WeightsError
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.weights.digest import Digest, refuse_unless, short
from agseg.weights.entry import WeightsEntry, WeightsFormat
from agseg.weights.files import SourceKind, WeightsFile
from agseg.weights.progress import Progress, no_progress
from agseg.weights.trust import TrustRecord, TrustStore, coordinates

if TYPE_CHECKING:
    from agseg.weights.sources import Fetched

LOCK_TIMEOUT_S = 3600.0
"""How long a process waits for another that is fetching the same file."""

CONVERTER_VERSION = 1
"""Grows when a conversion writes other tensors than before; cached conversions of another version are made again."""

PACKAGED_FOLDER = Path(agseg.__file__).resolve().parent / "weights" / "packaged"
"""Weights that travel with agseg."""


class FileState(StrEnum):
    """What :meth:`WeightsCache.verify` found."""

    VERIFIED = "verified"
    MISSING = "missing"
    CORRUPT = "corrupt"


class WeightsCache:
    """The cache below ``home``.

    Parameters
    ----------
    home
        ``$AGSEG_HOME`` or the platform's cache folder; created when something is first written.
    offline
        Never use the network: what is missing is an error.
    allowed_hosts
        A site manifest's own hosts, see :attr:`agseg.weights.manifest.Manifest.allowed_hosts`.
    progress
        Called with bytes done, bytes in all and the file's name.
    """

    def __init__(
        self,
        home: Path,
        *,
        offline: bool,
        allowed_hosts: tuple[str, ...] = (),
        progress: Progress = no_progress,
    ) -> None:
        self.root = home / "weights"
        self.offline = offline
        self.allowed_hosts = allowed_hosts
        self.progress = progress
        self.trust = TrustStore(self.root / "trust")
        self._checked: set[tuple[Path, int, int]] = set()

    def ensure(self, entry: WeightsEntry) -> tuple[Path, ...]:
        """Every file of the entry as checked safetensors, ready to load; what is missing is fetched.

        Raises
        ------
        WeightsError
            If a file is missing and the network may not be used or does not have it; ``E_WEIGHTS_CHECKSUM`` if its digest is
            another.
        OutputError
            If the cache cannot be written or the disk is full.
        """
        return tuple(self._native(file, self._original(entry.id, file), entry.format) for file in entry.files)

    def fetch(self, entry: WeightsEntry) -> tuple[Path, ...]:
        """Every file of the entry as published and checked; what is missing is fetched. Nothing is converted."""
        return tuple(self._original(entry.id, file) for file in entry.files)

    def fetch_file(self, weights_id: str, file: WeightsFile) -> Path:
        """One file, of an entry or of a published model, as published and checked; fetched if it is missing."""
        return self._original(weights_id, file)

    def available(self, entry: WeightsEntry) -> bool:
        """Whether all files are here, by presence and size; :meth:`ensure` checks the digests."""
        return all(self._is_present(file) for file in entry.files)

    def missing(self, entry: WeightsEntry) -> tuple[WeightsFile, ...]:
        """The files that are not here yet."""
        return tuple(file for file in entry.files if not self._is_present(file))

    def verify(self, entry: WeightsEntry) -> tuple[tuple[WeightsFile, FileState], ...]:
        """Read every file of the entry that is here and compare its digest; nothing is fetched."""
        return tuple((file, self._state(file)) for file in entry.files)

    def with_recorded_digests(self, entry: WeightsEntry) -> WeightsEntry:
        """The entry with the SHA-256 that the first fetch found, where the manifest has none."""
        files = []
        for file in entry.files:
            record = self.trust.get(file)
            files.append(file if record is None else replace(file, sha256=record.sha256, size_bytes=record.size_bytes))
        return replace(entry, files=tuple(files))

    def add(self, file: WeightsFile, source: Path, *, commit: str | None = None) -> Path:
        """Copy a file that somebody brought into the cache, if it is the one the manifest describes.

        Parameters
        ----------
        commit
            The hub's commit that the bringer recorded, if known.

        Raises
        ------
        WeightsError
            ``E_WEIGHTS_CHECKSUM`` if it is another file.
        """
        digest = Digest.of(source)
        refuse_unless(digest, file, path=source, recorded_sha256=self._sha256(file))
        with self._lock(_key(file)):
            return self._keep(file, source, digest, commit=commit)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A path in the cache for a passing file; whatever is there at the end is removed."""
        path = make_folder(self.root / "partial") / f"scratch-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def path_of(self, file: WeightsFile) -> Path | None:
        """Where the published file is or would be; None where its SHA-256 is not known yet."""
        source = file.source
        if source.kind is SourceKind.PACKAGED:
            return PACKAGED_FOLDER / str(source.path)
        if source.kind is SourceKind.LOCAL:
            return Path(str(source.path))
        sha256 = self._sha256(file)
        return None if sha256 is None else self.root / "blobs" / sha256

    def _sha256(self, file: WeightsFile) -> str | None:
        record = self.trust.get(file)
        return record.sha256 if record is not None else file.sha256

    def _is_present(self, file: WeightsFile) -> bool:
        path = self.path_of(file)
        return path is not None and path.is_file() and file.size_bytes in (None, path.stat().st_size)

    def _state(self, file: WeightsFile) -> FileState:
        path = self.path_of(file)
        if path is None or not path.is_file():
            return FileState.MISSING
        return FileState.VERIFIED if Digest.of(path).is_of(file, recorded_sha256=self._sha256(file)) else FileState.CORRUPT

    def _original(self, weights_id: str, file: WeightsFile) -> Path:
        path = self.path_of(file)
        if path is not None and path.is_file():
            self._check(path, file)
            return path
        if file.source.kind in (SourceKind.PACKAGED, SourceKind.LOCAL):
            raise WeightsError(f"the weights file {file.filename} of {weights_id} is not there", path=path)
        with self._lock(_key(file)):
            path = self.path_of(file)  # another process may have fetched it while this one waited
            if path is not None and path.is_file():
                self._check(path, file)
                return path
            return self._fetch(weights_id, file)

    def _check(self, path: Path, file: WeightsFile) -> None:
        status = path.stat()
        seen = (path, status.st_size, status.st_mtime_ns)
        if seen not in self._checked:
            refuse_unless(Digest.of(path), file, path=path, recorded_sha256=self._sha256(file))
            self._checked.add(seen)

    def _fetch(self, weights_id: str, file: WeightsFile) -> Path:
        record = self.trust.get(file)
        partial = self.root / "partial" / _key(file)
        # Most runs have their weights, and what speaks HTTP is not imported for them.
        from agseg.weights.sources import fetch

        fetched = fetch(
            file,
            partial,
            weights_id=weights_id,
            commit=record.commit if record else None,
            recorded_sha256=record.sha256 if record else None,
            allowed_hosts=self.allowed_hosts,
            offline=self.offline,
            progress=self.progress,
        )
        return self._accept(file, fetched)

    def _accept(self, file: WeightsFile, fetched: Fetched) -> Path:
        path = self._keep(file, fetched.path, fetched.digest, commit=fetched.commit, move=fetched.is_temporary)
        self._checked.add((path, path.stat().st_size, path.stat().st_mtime_ns))
        return path

    def _keep(self, file: WeightsFile, source: Path, digest: Digest, *, commit: str | None, move: bool = False) -> Path:
        """Put a checked file under its digest, and write the record of a first fetch."""
        blob = self.root / "blobs" / digest.sha256
        if move:
            make_folder(blob.parent)
            source.replace(blob)
        elif not blob.exists() or Digest.of(blob) != digest:
            with replacing(blob, check=lambda copy: refuse_unless(Digest.of(copy), file, path=source)) as temporary:
                shutil.copyfile(source, temporary)
        record = self.trust.get(file)
        if file.sha256 is None and (record is None or (record.commit is None and commit is not None)):
            found = TrustRecord.now(file, sha256=digest.sha256, size_bytes=digest.size_bytes, commit=commit)
            self.trust.put(file, found)
        return blob

    def _native(self, file: WeightsFile, original: Path, weights_format: WeightsFormat) -> Path:
        """The file itself, or its conversion from the cache, made when it is first needed."""
        if weights_format is WeightsFormat.SAFETENSORS:
            return original
        sha256 = self._sha256(file)
        assert sha256 is not None  # the file was checked
        path = self.root / "native" / f"{sha256}.safetensors"
        if self._is_good_conversion(path, weights_format):
            return path
        with self._lock(f"native-{sha256}"):
            if not self._is_good_conversion(path, weights_format):
                self._convert(original, path, weights_format)
        return path

    def _convert(self, original: Path, path: Path, weights_format: WeightsFormat) -> None:
        from agseg.weights.convert import convert

        with replacing(path) as temporary:
            convert(original, temporary, weights_format=weights_format)
            sha256 = Digest.of(temporary).sha256
        record = {"format": weights_format, "converter": CONVERTER_VERSION, "sha256": sha256}
        write_text(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
        self._checked.add((path, path.stat().st_size, path.stat().st_mtime_ns))

    def _is_good_conversion(self, path: Path, weights_format: WeightsFormat) -> bool:
        """Whether the cached conversion is of today's converter; a damaged one is refused, not made again silently."""
        record_path = path.with_suffix(".json")
        if not path.is_file() or not record_path.is_file():
            return False
        try:
            record = json.loads(record_path.read_text(encoding="utf-8"))
            described = (record["format"], record["converter"])
            sha256 = str(record["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if described != (weights_format, CONVERTER_VERSION):
            return False
        seen = (path, path.stat().st_size, path.stat().st_mtime_ns)
        if seen in self._checked:
            return True
        found = Digest.of(path).sha256
        if found != sha256:
            raise WeightsError(
                "the converted weights in the cache have changed since they were made",
                code=Code.WEIGHTS_CHECKSUM,
                path=path,
                value=short(found),
                expected=short(sha256),
                hint=f"Remove {path.name}; it is made again from the published file.",
            )
        self._checked.add(seen)
        return True

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        folder = make_folder(self.root / "locks")
        try:
            with FileLock(folder / f"{key}.lock", timeout=LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise WeightsError("another process holds this weights file", value=key, hint="Try again later.") from error


def _key(file: WeightsFile) -> str:
    """A name for a file before it is here: the digest it will have, or one of its coordinates."""
    if file.sha256 is not None:
        return file.sha256
    return hashlib.sha256(coordinates(file).encode()).hexdigest()
