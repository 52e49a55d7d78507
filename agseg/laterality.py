"""Left and right in names: which labels have a side, and what the same structure of the other side is called.

Who mirrors a scan must know: a mirrored left kidney looks like a right one, and would go on being called left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from agseg.errors import UsageError

_FELLOWS = {
    one: other for pair in (("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh")) for one, other in (pair, pair[::-1])
}
"""Words that say a side, and those that say the other one."""

_NO_SIDE = frozenset({"bright", "cleft", "leftover", "upright"})
"""Words with *left* or *right* at an end that say no side."""

_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z][a-z0-9]*|\d+[a-z0-9]*")
"""Words between blanks, marks and changes of case; digits stay with the letters before them (``L1`` is a vertebra)."""

_JOINED = re.compile(r"^(left|right)|(left|right)(?=\d*$)")
"""*left* or *right* at an end of a word, as in ``leftkidney`` and ``Left1``."""


def fellow(name: str) -> str | None:
    """What the same structure of the other side is called, in the same spelling; None for a name without a side.

    ``kidney_left``, ``Left Kidney``, ``kidney-l``, ``LKidney``, ``leftkidney`` and ``lt_kidney`` have one: a letter counts
    where it is a word of its own.
    """
    parts: list[str] = []
    end = 0
    for found in _WORD.finditer(re.sub(r"[^\x00-\x7f]", "x", name)):
        word = found.group().lower()
        joined = _JOINED.search(word)
        if word in _FELLOWS:
            first, last = found.span()
        elif joined is not None and word not in _NO_SIDE:
            first, last = (found.start() + place for place in joined.span())
        else:
            continue
        said = name[first:last]
        other = _FELLOWS[said.lower()]
        parts += [name[end:first], other.upper() if said.isupper() else other.capitalize() if said.istitle() else other]
        end = last
    return "".join([*parts, name[end:]]) if parts else None


def sided(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that say a side."""
    return tuple(name for name in names if fellow(name) is not None)


def left_right_pairs(labels: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Indices of the labels (by name) that exist on both sides, pair by pair.

    Raises
    ------
    UsageError
        If a label has a side and no fellow: what a mirror image shows of it belongs to no label.
    """
    indices = {name.casefold(): index for name, index in labels.items()}
    pairs: set[tuple[int, int]] = set()
    for name in sided(labels):
        other = indices.get(str(fellow(name)).casefold())
        if other is None:
            raise UsageError(
                f"{name} has no label for its other side, so mirror images cannot be averaged with the scan",
                value="--mirror",
                hint="Leave --mirror out.",
            )
        pairs.add((min(labels[name], other), max(labels[name], other)))
    return tuple(sorted(pairs))
