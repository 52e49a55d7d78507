"""Resume keys: digests of input, weights, settings and version that tell whether a study has been done the same way before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agseg.batch.arrival import FileState
from agseg.io.opening import open_regular

SAMPLE_BYTES = 4096
"""How much of each file's beginning and end is hashed: a copy with the old time and size is still noticed."""


def input_fingerprint(files: tuple[Path, ...], states: tuple[FileState, ...]) -> str:
    """SHA-256 (hex) over name below the input, size, time, first and last :data:`SAMPLE_BYTES` of every file.

    The whole content is not hashed: a night's studies would be read twice.

    Raises
    ------
    OSError, InputError
        If a file cannot be read; the caller lets the reader find the reason.
    """
    digest = hashlib.sha256()
    for path, state in sorted(zip(files, states, strict=True), key=lambda pair: pair[1].name):
        digest.update(json.dumps([state.name, state.size_bytes, state.mtime_ns]).encode())
        with open_regular(path) as stream:
            digest.update(hashlib.sha256(stream.read(SAMPLE_BYTES)).digest())
            if state.size_bytes > SAMPLE_BYTES:
                stream.seek(max(SAMPLE_BYTES, state.size_bytes - SAMPLE_BYTES))
                digest.update(hashlib.sha256(stream.read(SAMPLE_BYTES)).digest())
    return digest.hexdigest()


def resume_key(*, fingerprint: str, weights_sha256: str, usage_sha256: str, shaping: dict[str, Any], version: str) -> str:
    """SHA-256 (hex) of everything that the masks of one network depend on."""
    whole = json.dumps([fingerprint, weights_sha256, usage_sha256, shaping, version], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def joint_key(fingerprint: str, keys: tuple[str, ...]) -> str:
    """SHA-256 (hex) of everything that the masks of several networks depend on."""
    return hashlib.sha256(json.dumps([fingerprint, sorted(keys)]).encode()).hexdigest()
