"""Names of organs as files and command lines can bear them."""

from __future__ import annotations

import re


def organ_name(name: str) -> str:
    """A data set's name of a structure in agseg's style: lower case, words joined by underscores.

    ``Left Kidney`` -> ``left_kidney``. Which structure it is, nobody guesses: ``--organ-names`` says so.
    """
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "organ"
