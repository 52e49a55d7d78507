"""Names of organs as files and command lines can bear them."""

from __future__ import annotations

import re
import unicodedata

from agseg.laterality import fellow


def organ_name(name: str) -> str:
    """A data set's name of a structure in agseg's style: lower case, words joined by underscores.

    ``Left Kidney`` -> ``left_kidney``. Which structure it is, nobody guesses: ``--organ-names`` says so. Accents go, and a
    side that only capitals set apart stays a word: ``RKidney`` -> ``r_kidney``.
    """
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    plain = _joined(letters)
    return _joined(_CAPITALS.sub("_", letters)) if fellow(letters) is not None and fellow(plain) is None else plain


_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word begins that is set apart by its capital."""


def _joined(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "organ"
