"""Checks of single fields of an entry; each raises :class:`~agseg.errors.FieldError` with the field's name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from agseg.errors import FieldError


def check_enum(name: str, value: object, kind: type[StrEnum]) -> None:
    """Refuse what is no member of a closed choice."""
    if not isinstance(value, kind):
        raise FieldError(name, "not known", value=value, expected=" or ".join(kind))


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Refuse what is no shape of three axes."""
    if len(sizes) != 3 or not all(type(n) is int and n >= 1 for n in sizes):
        raise FieldError(name, "not a shape", value=list(sizes), expected="3 whole numbers above 0")


def check_numbers(name: str, numbers: Sequence[float], count: int, *, above: float = -math.inf) -> None:
    """Refuse anything but ``count`` finite numbers above a limit."""
    plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) and n > above for n in numbers)
    if len(numbers) != count or not plain:
        limit = "" if above == -math.inf else f" above {above:g}"
        raise FieldError(name, "not valid", value=list(numbers), expected=f"{count} number{'s' * (count > 1)}{limit}")
