"""The files of weights: where each comes from, and the digests that it is held to. Frozen types, valid once built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from agseg.errors import FieldError
from agseg.weights.checks import check_enum

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.\-]+/[A-Za-z0-9_.\-]+")


class SourceKind(StrEnum):
    """Where a weights file comes from."""

    PACKAGED = "packaged"
    HUB = "hub"
    URL = "url"
    LOCAL = "local"


@dataclass(frozen=True)
class FileSource:
    """Packaged: ``path`` below the package's weights folder. Hub: repository, pinned revision, file name. URL: https."""

    kind: SourceKind
    path: str | None = None
    repository: str | None = None
    revision: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        check_enum("kind", self.kind, SourceKind)
        match self.kind:
            case SourceKind.HUB:
                if not _REPOSITORY.fullmatch(self.repository or ""):
                    raise FieldError("hub", "not a hub repository", value=self.repository, expected="owner/name")
                if not self.revision or not self.path:
                    raise FieldError("hub", "a hub file needs a revision and a path")
            case SourceKind.URL:
                parts = urlsplit(self.url or "")
                if parts.scheme not in ("https", "http") or not parts.hostname:
                    raise FieldError("url", "not a URL", value=self.url, expected="https://...")
            case SourceKind.PACKAGED:
                inside = PurePosixPath(self.path or "")
                if not self.path or inside.is_absolute() or ".." in inside.parts:
                    raise FieldError("packaged", "not a path below the package's weights folder", value=self.path)
            case SourceKind.LOCAL:
                if not self.path:
                    raise FieldError("local", "a local file needs a path")


@dataclass(frozen=True)
class WeightsFile:
    """One file of an entry with its digests; ``md5`` only where the publisher gives nothing better.

    With ``on_first_fetch`` there may be neither: what the first fetch finds binds every later one.

    Raises
    ------
    FieldError
        If a field does not hold what it must.
    """

    filename: str
    source: FileSource
    sha256: str | None
    size_bytes: int | None
    md5: str | None = None
    on_first_fetch: bool = False

    def __post_init__(self) -> None:
        if not self.filename or PurePosixPath(self.filename).name != self.filename or self.filename.startswith("."):
            raise FieldError("filename", "not a file name", value=self.filename)
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise FieldError("sha256", "not a SHA-256", value=self.sha256, expected="64 lower-case hexadecimal digits")
        if self.md5 is not None and not _MD5.fullmatch(self.md5):
            raise FieldError("md5", "not an MD5", value=self.md5, expected="32 lower-case hexadecimal digits")
        if self.sha256 is None and not self.on_first_fetch and (self.md5 is None or self.source.kind is not SourceKind.HUB):
            # Only a hub names a commit that can be recorded and held to.
            raise FieldError("sha256", "sha256 is missing; only a hub file may do with its md5")
        if self.size_bytes is not None and self.size_bytes < 1:
            raise FieldError("size_bytes", "not a size", value=self.size_bytes, expected="at least 1")
