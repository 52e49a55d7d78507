"""Digests of a weights file: SHA-256, MD5 and size, in one pass over its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agseg.errors import Code, WeightsError
from agseg.weights.files import WeightsFile

CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class Digest:
    """Digests as lower-case hexadecimal digits."""

    sha256: str
    md5: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> Digest:
        """Of a file on disk."""
        # MD5 only where a publisher gives nothing better; never the sole check after the first fetch.
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                sha256.update(chunk)
                md5.update(chunk)
                size += len(chunk)
        return cls(sha256.hexdigest(), md5.hexdigest(), size)

    def is_of(self, file: WeightsFile, *, recorded_sha256: str | None = None) -> bool:
        """Whether this is the file that the manifest (and the record of its first fetch) describes."""
        expected = file.sha256 or recorded_sha256
        if expected is not None and self.sha256 != expected:
            return False
        if file.md5 is not None and self.md5 != file.md5:
            return False
        return expected is not None or file.md5 is not None or file.on_first_fetch


def refuse_unless(digest: Digest, file: WeightsFile, *, path: Path, recorded_sha256: str | None = None) -> None:
    """Raise unless the digest is that of the file.

    Raises
    ------
    WeightsError
        ``E_WEIGHTS_CHECKSUM``.
    """
    if digest.is_of(file, recorded_sha256=recorded_sha256):
        return
    expected = file.sha256 or recorded_sha256
    kind, value, wanted = ("SHA-256", digest.sha256, expected) if expected else ("MD5", digest.md5, file.md5)
    raise WeightsError(
        f"the weights file {file.filename} is not the one in the manifest ({kind})",
        code=Code.WEIGHTS_CHECKSUM,
        path=path,
        value=f"{short(value)} ({digest.size_bytes} bytes)",
        expected=short(wanted or ""),
        hint="Remove it and fetch it again: agseg weights fetch ID",
    )


def short(digest: str) -> str:
    """The first twelve digits, enough to compare by eye."""
    return digest[:12] + "…"
