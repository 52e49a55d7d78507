"""JSON files of a model folder: read with limits, and taken apart key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from agseg.errors import WeightsError
from agseg.io.os_errors import in_words

T = TypeVar("T")

MAX_JSON_BYTES = 64 * 1024**2
"""A data set of ten thousand cases lists them in 2 MB."""


class Facts:
    """One mapping of a JSON file; every value that is taken out is of the type that was asked for.

    Parameters
    ----------
    content
        The mapping.
    path
        The file.
    name
        Where in the file, for messages.
    """

    def __init__(self, content: Mapping[str, Any], *, path: Path, name: str = "") -> None:
        self.content, self.path, self.name = content, path, name

    @classmethod
    def read(cls, path: Path) -> Facts:
        """The mapping that a JSON file holds.

        Raises
        ------
        WeightsError
            If it cannot be read, is too large, or is something else.
        """
        try:
            with path.open("rb") as file:
                text = file.read(MAX_JSON_BYTES + 1)
            if len(text) > MAX_JSON_BYTES:
                raise WeightsError("the file is too large", path=path, expected=f"at most {MAX_JSON_BYTES} bytes")
            content = json.loads(text)
        except (OSError, ValueError, RecursionError) as problem:
            said = in_words(problem) if isinstance(problem, OSError) else "not valid JSON"
            raise WeightsError(f"{path.name} cannot be read: {said}", path=path) from problem
        if not isinstance(content, dict):
            raise WeightsError(f"{path.name} holds no mapping", path=path, value=type(content).__name__)
        return cls(content, path=path)

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key."""
        value = self.content.get(key)
        if value is None and default is not None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.refuse(key, "is missing" if value is None else "is of the wrong type", expected=kind.__name__)
        return value

    def section(self, key: str) -> Facts:
        """The mapping below a key."""
        return Facts(self.take(key, dict), path=self.path, name=self._within(key))

    def numbers(self, key: str, kind: type[T], *, count: int | None = None) -> tuple[T, ...]:
        """A list of numbers."""
        values = self.take(key, list)
        made = tuple(Facts({key: value}, path=self.path, name=self.name).take(key, kind) for value in values)
        if count is not None and len(made) != count:
            raise self.refuse(key, "has the wrong length", value=len(made), expected=count)
        return made

    def sections(self) -> Iterator[tuple[str, Facts]]:
        """Every mapping below this one, by key."""
        for key in self.content:
            yield key, self.section(key)

    def refuse(
        self, key: str, message: str, *, value: object = None, expected: object = None, hint: str | None = None
    ) -> WeightsError:
        """The error for a key of this file."""
        return WeightsError(
            f"{self.path.name}: {self._within(key)} {message}", path=self.path, value=value, expected=expected, hint=hint
        )

    def _within(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
