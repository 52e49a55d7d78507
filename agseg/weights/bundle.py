"""Weights in one tar file, for places without a network: an index with digests, then each file under its SHA-256.

::

    agseg-bundle.json        {"schema": "agseg.bundle/1", "files": [{"filename", "sha256", "size_bytes", "commit"}],
                              "entries": {id: the manifest of an entry that a site imported}}       (only where there are any)
    files/<sha256>

A bundle is read with suspicion: plain uncompressed tar, regular files of exactly these names, capped in number and size, and
each file checked against the index and against the manifest before it is kept. Nothing is unpacked by its own name.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from agseg.errors import Code, WeightsError
from agseg.io.atomic import replacing
from agseg.weights.digest import Digest, short

BUNDLE_SCHEMA = "agseg.bundle/1"
INDEX_NAME = "agseg-bundle.json"

MAX_FILES = 256
MAX_INDEX_BYTES = 1024**2
MAX_FILE_BYTES = 4 * 1024**3
"""Caps on what a bundle may hold."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class BundledFile:
    """One line of the index.

    Parameters
    ----------
    commit
        The hub's commit that the exporting side recorded, if there was one.
    """

    filename: str
    sha256: str
    size_bytes: int
    commit: str | None = None


def write_bundle(
    destination: Path, files: Sequence[tuple[BundledFile, Path]], *, entries: Mapping[str, str] | None = None
) -> None:
    """Write a bundle; the same files give the same bytes.

    Parameters
    ----------
    destination, files
        The bundle, and what goes into it.
    entries
        Manifests (YAML) of entries that only this site has, by id.

    Raises
    ------
    WeightsError
        If a file is no longer the one its line in the index describes.
    OutputError
        If the bundle cannot be written.
    """
    once = {bundled.sha256: (bundled, path) for bundled, path in files}
    index: dict[str, Any] = {"schema": BUNDLE_SCHEMA, "files": [asdict(bundled) for bundled, _ in once.values()]}
    if entries:
        index["entries"] = dict(entries)
    content = json.dumps(index, indent=2).encode()
    with replacing(destination) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        _append(archive, INDEX_NAME, io.BytesIO(content), len(content))
        for bundled, path in once.values():
            if Digest.of(path).sha256 != bundled.sha256:
                raise WeightsError("a weights file changed while it was exported", code=Code.WEIGHTS_CHECKSUM, path=path)
            with path.open("rb") as stream:
                _append(archive, f"files/{bundled.sha256}", stream, bundled.size_bytes)


def _append(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)  # time, owner and group stay 0
    member.size, member.mode = size, 0o600
    archive.addfile(member, stream)


def is_bundle(path: Path) -> bool:
    """Whether a file begins like a bundle."""
    with path.open("rb") as stream:
        return stream.read(512).startswith(INDEX_NAME.encode() + b"\0")


class Bundle:
    """A bundle opened for reading; use :meth:`open`."""

    def __init__(self, archive: tarfile.TarFile, path: Path) -> None:
        self.path = path
        self._members = self._listed(archive)
        self._archive = archive
        self.entries: dict[str, str] = {}
        self.files = self._index()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Bundle]:
        """Open and check the list of members.

        Raises
        ------
        WeightsError
            ``E_UNSAFE_ARCHIVE`` if it holds anything that a bundle does not, or too much; ``E_WEIGHTS`` if it breaks off.
        """
        try:
            with tarfile.open(path, "r:") as archive:
                yield cls(archive, path)
        except (tarfile.TarError, EOFError) as error:
            raise WeightsError("the bundle cannot be read to its end", path=path, value=type(error).__name__) from error

    def extract(self, file: BundledFile, destination: Path) -> Digest:
        """Copy one file's bytes to ``destination``, which the caller names, and check its digest.

        Raises
        ------
        WeightsError
            ``E_WEIGHTS_CHECKSUM`` if the bytes are not those of the index.
        """
        stream = self._archive.extractfile(self._members[f"files/{file.sha256}"])
        assert stream is not None  # regular files only
        with stream, destination.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        digest = Digest.of(destination)
        if (digest.sha256, digest.size_bytes) != (file.sha256, file.size_bytes):
            raise WeightsError(
                f"{file.filename} in the bundle is damaged",
                code=Code.WEIGHTS_CHECKSUM,
                path=self.path,
                value=short(digest.sha256),
                expected=short(file.sha256),
            )
        return digest

    def _listed(self, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            expected = member.name == INDEX_NAME or (folder == "files" and _SHA256.fullmatch(name) is not None)
            cap = MAX_INDEX_BYTES if member.name == INDEX_NAME else MAX_FILE_BYTES
            if not expected or member.type != tarfile.REGTYPE or member.name in members:
                raise self._unsafe("an entry that does not belong in a bundle", member.name)
            if member.size > cap or len(members) > MAX_FILES:
                raise self._unsafe("more than a bundle may", f"{member.size} bytes in entry {len(members) + 1}")
            members[member.name] = member
        if INDEX_NAME not in members:
            raise self._unsafe("no index", INDEX_NAME)
        return members

    def _index(self) -> tuple[BundledFile, ...]:
        stream = self._archive.extractfile(self._members[INDEX_NAME])
        assert stream is not None  # regular files only
        try:
            content: Any = json.loads(stream.read())
            files = tuple(BundledFile(**line) for line in content["files"])
            schema = content["schema"]
            self.entries = {str(name): str(text) for name, text in content.get("entries", {}).items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unsafe("an index that cannot be read", type(error).__name__) from error
        if schema != BUNDLE_SCHEMA:
            raise WeightsError("a bundle of another version", path=self.path, value=schema, expected=BUNDLE_SCHEMA)
        if {f"files/{file.sha256}" for file in files} | {INDEX_NAME} != set(self._members):
            raise self._unsafe("files that its index does not list, or the other way round", len(files))
        if any(file.commit is not None and not _COMMIT.fullmatch(str(file.commit)) for file in files):
            raise self._unsafe("a value that is not a commit hash", "commit")
        return files

    def _unsafe(self, what: str, value: object) -> WeightsError:
        return WeightsError(f"the bundle holds {what}", code=Code.UNSAFE_ARCHIVE, path=self.path, value=value)
