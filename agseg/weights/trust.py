"""Trust on first fetch: where a publisher gives no SHA-256, what the first fetch found binds every later one.

The first fetch is checked against the publisher's MD5. The commit and the SHA-256 found then are written down in the cache;
a later file with another SHA-256, or a hub that answers with another commit, is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from agseg.errors import Code, WeightsError
from agseg.io.atomic import write_text
from agseg.weights.files import WeightsFile


@dataclass(frozen=True)
class TrustRecord:
    """What the first fetch of a file found.

    Parameters
    ----------
    commit
        The hub's commit, None where the file was imported by hand.
    """

    filename: str
    repository: str | None
    path: str | None
    md5: str | None
    sha256: str
    size_bytes: int
    commit: str | None
    recorded: str

    @classmethod
    def now(cls, file: WeightsFile, *, sha256: str, size_bytes: int, commit: str | None) -> TrustRecord:
        """A record made at this moment."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        source = file.source
        return cls(file.filename, source.repository, source.path, file.md5, sha256, size_bytes, commit, moment)


def coordinates(file: WeightsFile) -> str:
    """Where a file without a published SHA-256 comes from: what its record is kept under."""
    source = file.source
    parts = (source.repository, source.revision, source.path, file.md5, *((source.url,) if source.url else ()))
    return "\n".join(part or "" for part in parts)


class TrustStore:
    """The records, one JSON file each, below a folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, file: WeightsFile) -> TrustRecord | None:
        """The record of this file, or None before its first fetch, or where the manifest has its SHA-256.

        Raises
        ------
        WeightsError
            If the record cannot be read: a damaged record must not turn into a new first fetch.
        """
        path = self._path(file)
        if file.sha256 is not None or not path.exists():
            return None
        try:
            return TrustRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(
                f"the record of the first fetch of {file.filename} cannot be read",
                code=Code.WEIGHTS_CHECKSUM,
                path=path,
                value=type(error).__name__,
                hint="Restore it from a backup, or remove it to trust the next download.",
            ) from error

    def put(self, file: WeightsFile, record: TrustRecord) -> None:
        """Write the record down; there is one per hub file and MD5."""
        write_text(self._path(file), json.dumps(asdict(record), indent=2) + "\n")

    def _path(self, file: WeightsFile) -> Path:
        key = coordinates(file)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
