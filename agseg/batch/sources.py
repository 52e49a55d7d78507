"""Whose a study is, and what of that a record may say.

The headers of a study name its patient. Unless a run is asked for identifiers, its records say instead:

- a **pseudonym** of the patient, made with a key that only this site has (HMAC-SHA-256 of the PatientID): a patient has one
  pseudonym at a site, and who has the records but not the key can neither work it back nor try out all ids;
- the **date of the study**: without it no radiologist finds a study again. It names nobody by itself, but like all of a result
  it is patient data, and the files are for their owner alone;
- the **series' number**, and of its **description** only the words that are known to describe a protocol
  (``protocol_words.txt``) and short numbers: a description is free text, and names are typed into it.

Nothing of this is printed; it goes into run.json, study.json, volumes.csv and report.html.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

from agseg.errors import OutputError, UsageError
from agseg.io.atomic import FILE_MODE, make_folder
from agseg.study import Source

KEY_FILE = "pseudonym.key"
"""In ``$AGSEG_HOME``: 64 hex digits, readable by their owner alone. Another key means other pseudonyms."""

_KEY = re.compile(rb"[0-9a-f]{64}\n?")

_PSEUDONYM_LETTERS = 10
"""50 bits: among a million patients two share a pseudonym with a chance of 1 in 2000."""

_LONGEST_DESCRIPTION = 64
_DATE = re.compile(r"(\d{4})[.:-]?(\d{2})[.:-]?(\d{2})")
_SEPARATORS = re.compile(r"[\s_/+;:()\[\]{}<>|&*^=\"'-]+")
_SHORT = re.compile(r"\d{1,3}([.,]\d{1,2})?(mm|cm|s|sec|ml|kv|kev|hu|%|x)?|[a-z]{1,2}\d{2}[a-z]?\d?|[a-z]", re.IGNORECASE)
"""A short number with its unit, the name of a kernel (``B30f``, ``Br40d3``), one letter."""

_ELSE = "…"


def site_key(home: Path, *, make: bool = True) -> bytes | None:
    """The site's key for pseudonyms; None where there is none and none can, or shall, be made.

    Parameters
    ----------
    home
        ``$AGSEG_HOME``.
    make
        Make one where there is none.

    Raises
    ------
    UsageError
        If there is something else in its place: other pseudonyms than yesterday's would pass for other patients.
    """
    path = home / KEY_FILE
    if make and not os.path.lexists(path):
        # A home that cannot be written to costs the pseudonyms, not the run.
        with suppress(OSError, OutputError):
            make_folder(home)
            _make_key(path)
    if not os.path.lexists(path):
        return None
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if not _KEY.fullmatch(content):
        raise UsageError(
            "the site's key for pseudonyms cannot be used",
            path=path,
            expected="64 hex digits",
            hint="Restore it, or delete it: then every patient gets a new pseudonym.",
        )
    return bytes.fromhex(content.decode().strip())


def _make_key(path: Path) -> None:
    """Complete or not there, also while another run makes one."""
    draft = path.with_name(f".{KEY_FILE}.{secrets.token_hex(6)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def pseudonym(key: bytes, patient_id: str) -> str:
    """The patient's pseudonym at the site of this key: ``P-`` and ten letters or digits."""
    digest = hmac.digest(key, patient_id.strip().encode(errors="surrogateescape"), hashlib.sha256)
    return "P-" + base64.b32encode(digest).decode()[:_PSEUDONYM_LETTERS]


def source_of(headers: Mapping[str, str], *, key: bytes | None, identifiers: bool = False) -> Source:
    """What a record may say of whose a study is.

    Parameters
    ----------
    headers
        From :func:`agseg.io.dicom.identifiers.read_identifiers`.
    key
        The site's key; None makes no pseudonym.
    identifiers
        Whether the record may name the patient.
    """
    patient_id = headers.get("PatientID", "").strip()
    date = _DATE.fullmatch(headers.get("StudyDate", "").strip())
    number = headers.get("SeriesNumber", "").strip()
    return Source(
        patient=pseudonym(key, patient_id) if key is not None and patient_id else "",
        study_date="-".join(date.groups()) if date else "",
        series_number=number if number.isascii() and number.isdigit() and len(number) <= 6 else "",
        series_description=plain_description(headers.get("SeriesDescription", "")),
        identifiers=dict(headers) if identifiers else {},
    )


def plain_description(text: str) -> str:
    """A series description without the words that are not known to describe a protocol; ``…`` stands for each run of them."""
    kept: list[str] = []
    for word in _SEPARATORS.split(text[: 4 * _LONGEST_DESCRIPTION]):
        bare = word.strip(".,!?#")
        if not bare:
            continue
        if bare.casefold() in _words() or _SHORT.fullmatch(bare):
            kept.append(bare)
        elif not kept or kept[-1] != _ELSE:
            kept.append(_ELSE)
    plain = " ".join(kept)
    return "" if plain == _ELSE else plain[:_LONGEST_DESCRIPTION].strip()


@cache
def _words() -> frozenset[str]:
    text = files("agseg").joinpath("data", "protocol_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.casefold().split())
