"""A finished study's folder as its ``study.json`` describes it: which files belong to the result, and are they still those?

``study.json`` holds size and SHA-256 of every file of the result. Resume takes a study for done, ``pacs push`` sends an object,
and discovery passes over a file as our own output only if the bytes are the ones that the run wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agseg.errors import InputError
from agseg.io.opening import open_regular
from agseg.report import STUDY_JSON

CONTENTS = "contents"
"""Key in study.json: size and SHA-256 of each of its files but itself, by name."""

_LONGEST_RECORD_BYTES = 16 * 1024**2
"""A larger study.json is none of ours."""

_RESULT = re.compile(
    r"attention/[^/]+\.(nii\.gz|png)|labels\.nii\.gz|(seg|sr|rtstruct)(-\d+)?\.dcm|([^/]+/)?[^/]+\.(json|png|csv|stl|mp4)"
)
"""Names of results beside the organs' own masks."""

_HEX_64 = 64
_BLOCK_BYTES = 1 << 20


def contents_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files below a folder, for :data:`CONTENTS`.

    Raises
    ------
    OSError
        If one cannot be read.
    """
    return {name: _content(folder / name) for name in names}


def _content(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return {"size_bytes": size, "sha256": digest.hexdigest()}


def load_record(folder: Path, *, name: str = STUDY_JSON) -> dict[str, Any] | None:
    """The folder's ``study.json``, or None if there is none that a run could have written.

    Whether its files are there is another question, see :func:`changed_files`.
    """
    path = folder / name
    try:
        if path.lstat().st_size > _LONGEST_RECORD_BYTES:
            return None
        with open_regular(path) as stream:
            record = json.loads(stream.read(_LONGEST_RECORD_BYTES + 1))
    except (InputError, OSError, ValueError, RecursionError):
        return None
    return record if _is_record(record) else None


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not str(record.get("schema", "")).startswith("agseg.study/"):
        return False
    files, contents = record.get("files"), record.get(CONTENTS, {})
    return (
        isinstance(files, list)
        and all(isinstance(file, str) and _is_inside(file) for file in files)
        and isinstance(contents, dict)
        and all(isinstance(content, dict) for content in contents.values())
        and isinstance(record.get("input"), str)
        and isinstance(record.get("status"), str)
        and isinstance(record.get("organs"), list)
        and isinstance(record.get("key"), str)
    )


def _is_inside(name: str) -> bool:
    return bool(name) and not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))


def named_files(record: dict[str, Any] | None) -> frozenset[str]:
    """The files of a result by its record, ``study.json`` included, below its folder."""
    return frozenset() if record is None else frozenset(record["files"])


def is_intact(folder: Path, record: dict[str, Any], name: str) -> bool:
    """Whether a file of the result has the bytes that the run wrote.

    Records of before (``agseg.study/1``) hold no digests: there, a file that is not empty counts.

    Parameters
    ----------
    folder, record
        The study's folder and what :func:`load_record` says.
    name
        One of the record's files, below the folder.
    """
    known = record.get(CONTENTS, {}).get(name)
    with suppress(InputError, OSError):
        found = (folder / name).lstat()
        if not stat.S_ISREG(found.st_mode):
            return False
        if name == STUDY_JSON or CONTENTS not in record:
            return found.st_size > 0
        return known is not None and found.st_size == known.get("size_bytes") and _content(folder / name) == known
    return False


def changed_files(folder: Path, record: dict[str, Any]) -> tuple[str, ...]:
    """Files of the result that are gone, or are not what the run wrote."""
    return tuple(name for name in sorted(named_files(record)) if not is_intact(folder, record, name))


def sealed_files(folder: Path) -> frozenset[str]:
    """Names, below the folder, of the files that a result's record vouches for with their digests, and of the record itself.

    Empty if there is no record, or one without digests: then nothing tells the files from anybody's. Anybody may write such a
    record; so it vouches only for names that a run gives its results, never for a scan that lies beside it.
    """
    record = load_record(folder)
    if record is None or len(record["key"]) != _HEX_64 or not record.get(CONTENTS):
        return frozenset()
    organs = {str(organ.get("name")) for organ in record["organs"] if isinstance(organ, dict)}
    own = (name for name in record[CONTENTS] if name in record["files"] and _is_result(name, organs))
    sealed = {name for name in own if is_intact(folder, record, name)}
    return frozenset({STUDY_JSON, *sealed}) if sealed else frozenset()


def _is_result(name: str, organs: set[str]) -> bool:
    return _RESULT.fullmatch(name) is not None or name.removesuffix(".nii.gz").removesuffix(".edited") in organs
