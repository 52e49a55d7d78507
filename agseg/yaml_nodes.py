"""YAML as nodes that know their file and line, so that whatever is wrong in one can be told with its place.

Read strictly: no key twice, no tag that would build something, no alias that holds itself.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from agseg.errors import AgsegError, RecipeError
from agseg.io.os_errors import in_words

MAX_DOCUMENT_BYTES = 4 * 1024**2
"""What is read here is a page or a few of text; more than this is something else."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NO_FILE = "<text>"


def read(path: Path, *, error: type[AgsegError] = RecipeError, may_be_empty: bool = False) -> Node:
    """The root of a YAML file, to be bound as a whole or key by key.

    Parameters
    ----------
    error
        The class of every refusal.
    may_be_empty
        Whether an empty file is a mapping without keys, instead of an error.

    Raises
    ------
    AgsegError
        Of the given class, if the file cannot be read, is too large, empty, or no YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"the file cannot be read: {in_words(problem)}", path=path) from problem
    if len(content) > MAX_DOCUMENT_BYTES:
        raise error("the file is too large", path=path, expected=f"at most {MAX_DOCUMENT_BYTES} bytes")
    return compose(text, path, error, may_be_empty=may_be_empty)


def compose(text: str, path: Path | None, error: type[AgsegError], *, may_be_empty: bool = False) -> Node:
    """The root of YAML text, as from ``path``; see :func:`read`."""
    stream = io.StringIO(text)
    stream.name = _NO_FILE if path is None else str(path)  # marks carry it to every node
    try:
        node = yaml.compose(stream, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError) as problem:
        mark = getattr(problem, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise error(f"{where}not valid YAML", path=path) from problem
    if node is None:
        if not may_be_empty:
            raise error("the file is empty", path=path)
        start = yaml.Mark(stream.name, 0, 0, 0, "", 0)
        node = yaml.MappingNode("tag:yaml.org,2002:map", [], start, start)
    return Node(node, error, node.start_mark)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A part of a YAML file that knows its place in it.

    Parameters
    ----------
    raw
        As PyYAML composed it.
    error
        The class of every refusal.
    mark
        Its place: that of its key, if it has one.
    key
        The key that it is the value of, empty for the root.
    """

    raw: yaml.Node
    error: type[AgsegError]
    mark: Any
    key: str = ""

    @property
    def line(self) -> int:
        """From 1."""
        return int(self.mark.line) + 1

    @property
    def path(self) -> Path | None:
        """The file, None for text."""
        return None if self.mark.name == _NO_FILE else Path(self.mark.name)

    @property
    def is_null(self) -> bool:
        """Whether a key has no value."""
        return isinstance(self.raw, yaml.ScalarNode) and self.plain() is None

    def refuse(self, message: str, *, value: object = None, expected: object = None, hint: str | None = None) -> AgsegError:
        """The error for something that is wrong here."""
        return self.error(f"line {self.line}: {message}", path=self.path, value=value, expected=expected, hint=hint)

    def refuse_value(self, message: str, **data: Any) -> AgsegError:
        """The error for a value that its key does not take."""
        return self.refuse(f"{self.key}: {message}" if self.key else message, **data)

    def items(self) -> dict[str, Node]:
        """The values of a mapping by key, each at its key's line.

        Raises
        ------
        AgsegError
            If it is not a mapping, or a key appears twice.
        """
        return {key.raw.value: value for key, value in self.pairs()}

    def pairs(self) -> list[tuple[Node, Node]]:
        """Key and value of a mapping, each key once."""
        if not isinstance(self.raw, yaml.MappingNode):
            raise self.refuse_value("a mapping of keys to values is expected here")
        self.check_plain()
        found: dict[Any, tuple[Node, Node]] = {}
        for key, value in self.raw.value:
            node = Node(key, self.error, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                raise node.refuse("a key must be a word or a number")
            if key.value in found:
                raise node.refuse(f"the key {key.value!r} appears twice")
            found[key.value] = (node, Node(value, self.error, key.start_mark, str(key.value)))
        return list(found.values())

    def listed(self) -> list[Node]:
        """The items of a list."""
        if not isinstance(self.raw, yaml.SequenceNode):
            raise self.refuse_value("a list is expected here")
        self.check_plain()
        return [Node(item, self.error, item.start_mark, self.key) for item in self.raw.value]

    def check_plain(self) -> None:
        """Refuse mappings and lists that are said to be something else: they would be built by code."""
        if self.raw.tag not in _PLAIN_TAGS:
            raise self.refuse_value("a value that plain YAML does not have", value=self.raw.tag)

    def merged_over(self, base: Node) -> Node:
        """These keys, and the keys of ``base`` that it does not have; every value keeps its own file and line."""
        mine = self.items()
        base.items()
        rest = [(key, value) for key, value in base.raw.value if key.value not in mine]
        raw = yaml.MappingNode(self.raw.tag, [*self.raw.value, *rest], self.raw.start_mark, self.raw.end_mark)
        return Node(raw, self.error, self.mark)

    def plain(self) -> Any:
        """As ordinary Python values."""
        return Plain()(self)


class Plain:
    """From nodes to ordinary Python values; what an alias repeats is built once."""

    def __init__(self) -> None:
        self.constructor = SafeConstructor()
        self.built: dict[int, Any] = {}
        self.open: set[int] = set()

    def __call__(self, node: Node) -> Any:
        """A node as ordinary Python values."""
        raw, key = node.raw, id(node.raw)
        if key in self.built:
            return self.built[key]
        if key in self.open:
            raise node.refuse_value("an alias that holds itself")
        self.open.add(key)
        try:
            if isinstance(raw, yaml.MappingNode):
                found: Any = {self(k): self(v) for k, v in node.pairs()}
            elif isinstance(raw, yaml.SequenceNode):
                found = [self(item) for item in node.listed()]
            else:
                found = self.constructor.construct_object(raw, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as problem:
            raise node.refuse_value("a value that plain YAML does not have") from problem
        finally:
            self.open.discard(key)
        self.built[key] = found
        return found
