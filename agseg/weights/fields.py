"""A YAML mapping read key by key: nothing unknown, nothing twice, and every complaint with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml

from agseg.errors import UsageError
from agseg.io.absence import in_words

__all__ = ["Fields"]

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 4 * 1024**2
"""A manifest is a page of text; more than this is something else."""


class Fields:
    """The keys of one mapping; :meth:`take` removes one, :meth:`finish` refuses what is left.

    Parameters
    ----------
    node
        A composed YAML mapping (:func:`yaml.compose` with the safe loader).
    path
        The file it stands in.
    name
        What the mapping is, for messages: ``"entry obelisk-tcia"``.
    """

    def __init__(self, node: yaml.Node, *, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.line = node.start_mark.line + 1
        self._left: dict[str, tuple[yaml.Node, Path, int]] = {}
        if not isinstance(node, yaml.MappingNode):
            raise self.error("not a mapping", self.line)
        for key, value in node.value:
            word, line = str(key.value), key.start_mark.line + 1
            if word in self._left:
                raise self.error(f"the key {word!r} stands twice", line)
            self._left[word] = (value, path, line)

    @classmethod
    def read(cls, path: Path, *, name: str) -> Fields:
        """The mapping that a YAML file holds.

        Raises
        ------
        UsageError
            If the file cannot be read, is no YAML, or holds something else than a mapping.
        """
        try:
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise UsageError(f"the {name} is too large", path=path, expected=f"at most {MAX_DOCUMENT_BYTES} bytes")
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"the {name} cannot be read: {in_words(error)}", path=path) from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark is not None else ""
            raise UsageError(f"the {name} is not valid YAML{where}", path=path) from error
        if node is None:
            raise UsageError(f"the {name} is empty", path=path)
        return cls(node, path=path, name=name)

    def error(self, message: str, line: int, *, value: object = None, expected: object = None) -> UsageError:
        """A complaint about this mapping, with its line."""
        return UsageError(f"{self.name}, line {line}: {message}", path=self.path, value=value, expected=expected)

    def keys(self) -> tuple[str, ...]:
        """The keys not taken yet."""
        return tuple(self._left)

    def line_of(self, key: str) -> int:
        """The line of a key not taken yet, or that of the mapping."""
        return self._left[key][2] if key in self._left else self.line

    def merged_over(self, base: Fields) -> Fields:
        """These keys, and those of ``base`` that are not here."""
        self._left = {**base._left, **self._left}
        return self

    def origin(self, key: str) -> Path:
        """The file that ``key`` comes from (after a merge it may be another)."""
        return self._left[key][1] if key in self._left else self.path

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The plain value of ``key``; without a default the key is required.

        Integers are taken where floats are expected.
        """
        if key not in self._left:
            if default is None:
                raise self.error(f"the key {key!r} is missing", self.line)
            return default
        node, path, line = self._left.pop(key)
        value = _construct(node)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UsageError(
                f"{self.name}, line {line}: {key} is of the wrong type",
                path=path,
                value=type(value).__name__,
                expected=kind.__name__,
            )
        return value

    def section(self, key: str, name: str) -> Fields:
        """The mapping below ``key``."""
        if key not in self._left:
            raise self.error(f"the key {key!r} is missing", self.line)
        node, path, _line = self._left.pop(key)
        return Fields(node, path=path, name=name)

    def sections(self, key: str, name: str) -> tuple[Fields, ...]:
        """The mappings listed below ``key``."""
        if key not in self._left:
            raise self.error(f"the key {key!r} is missing", self.line)
        node, path, line = self._left.pop(key)
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise UsageError(f"{self.name}, line {line}: {key} must be a list with at least one item", path=path)
        return tuple(Fields(item, path=path, name=f"{name} {n}") for n, item in enumerate(node.value, start=1))

    def finish(self) -> None:
        """Refuse the keys that nobody asked for.

        Raises
        ------
        UsageError
            With the first unknown key, its line and its file.
        """
        for key, (_node, path, line) in self._left.items():
            raise UsageError(f"{self.name}, line {line}: unknown key {key!r}", path=path)


def _construct(node: yaml.Node) -> Any:
    # A loader of its own per value: the composed node carries its resolved tags already, and only safe ones construct.
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UsageError(f"line {node.start_mark.line + 1}: a value that plain YAML does not have") from error
    finally:
        loader.dispose()
