r"""Text that somebody else chose (names of files and folders, mostly), as it may be shown, logged and put into tables.

A control character can clear a terminal, start a row in a table or turn what follows round; so it is written out (``\x1b``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

_LINES = "\n\t"
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters of ASCII and Latin-1, line and paragraph separators, and what changes the direction of writing."""


def spelled_out(name: str) -> str:
    """A name for JSON, tables and screens: control characters, line ends included, and bytes that are no text written out."""
    return _CONTROLS.sub(_code, os.fsencode(name).decode("utf-8", "backslashreplace"))


def without_controls(text: str) -> str:
    """Text of several lines: line ends and tabs stay, every other control character is written out."""
    return _CONTROLS.sub(lambda found: found[0] if found[0] in _LINES else _code(found), text)


def naming(message: str, below: str) -> str:
    """A message about one file of several, with that file's path below the input behind it."""
    return f"{message} (file {spelled_out(below)})"


def below_inputs(path: Path, inputs: Iterable[Path]) -> str:
    """The path below its INPUT, spelled out; the bare name of a file that was given itself, or that is below none."""
    for given in inputs:
        root = given.resolve()
        if path != root and path.is_relative_to(root):
            return spelled_out(path.relative_to(root).as_posix())
    return spelled_out(path.name)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
