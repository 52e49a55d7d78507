"""A process that decodes compressed frames for a reader: requests on stdin, stored values on stdout.

The codecs hold Python's lock while they work, so threads cannot decode two slices at a time; processes can. A worker ends when
its stdin does, so it dies with its parent, and a codec that crashes costs a worker and not the reader.

Request: one JSON line ``{"path": ..., "frame": n}``. Answer: one JSON line ``{"bytes": n}`` followed by the stored values of
the frame (rows, columns), unsigned, in native byte order; or ``{"code": "E_...", "message": ...}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from agseg.errors import InputError
from agseg.io.dicom.dataset import open_dataset
from agseg.io.dicom.header import read_header
from agseg.io.dicom.pixels import decode_frame
from agseg.io.dicom.slice_header import SliceHeader


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    opened: tuple[Path, SliceHeader, Any] | None = None
    for line in requests:
        request = json.loads(line)
        path = Path(request["path"])
        try:
            if opened is None or opened[0] != path:
                opened = (path, read_header(path), open_dataset(path))
            stored = decode_frame(opened[2], opened[1], request["frame"])
        except InputError as error:
            _answer(answers, {"code": str(error.code), "message": error.message})
            continue
        _answer(answers, {"bytes": stored.nbytes})
        answers.write(np.ascontiguousarray(stored).tobytes())
        answers.flush()


def _answer(answers: BinaryIO, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document).encode() + b"\n")
    answers.flush()


def main() -> None:
    """Serve this process's own stdin and stdout."""
    serve(sys.stdin.buffer, sys.stdout.buffer)
