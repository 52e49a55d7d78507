"""YAML into frozen dataclasses, strictly: an unknown, missing, doubled or wrongly typed key is an error with file and line.

Manifests, recipes, data sets, a site's configuration and a cluster's settings are all read here. What a value must hold is
checked by the dataclass itself (``__post_init__``): a :class:`~agseg.errors.FieldError` or ``ValueError`` raised there gets
the line of the key, or of the mapping, that it came from.

A type that is written differently from its fields is given a :class:`Form`: the type that is written, and a function from that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from yaml.constructor import SafeConstructor

from agseg.errors import AgsegError, FieldError, RecipeError
from agseg.io.absence import in_words

__all__ = ["Form", "Forms", "Node", "bind", "load", "read"]

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 4 * 1024**2
"""What is read here is a page or a few of text; more than this is something else."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NO_FILE = "<text>"


@dataclasses.dataclass(frozen=True)
class Form:
    """How a type is written in a file.

    Parameters
    ----------
    written
        The type that the file holds in its place.
    make
        From a value of ``written`` and its file (None for text) to the type itself.
    """

    written: Any
    make: Callable[[Any, Path | None], Any]


Forms = Mapping[Any, Form]
"""Types that are written differently, by type."""


def load(path: Path, kind: type[T], *, error: type[AgsegError] = RecipeError, forms: Forms | None = None) -> T:
    """The dataclass ``kind`` that a YAML file describes.

    Parameters
    ----------
    error
        What to raise.
    forms
        See :class:`Form`.

    Raises
    ------
    AgsegError
        Of the given class, if the file cannot be read, is no YAML, or does not fit the dataclass; the message names the line.
    """
    return cast(T, read(path, error=error).bind(kind, forms=forms))


def bind(text: str, kind: type[T], *, path: Path | None = None, error: type[AgsegError] = RecipeError) -> T:
    """The dataclass ``kind`` that YAML text describes; see :func:`load`."""
    return cast(T, _compose(text, path, error).bind(kind))


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
    return _compose(text, path, error, may_be_empty=may_be_empty)


def _compose(text: str, path: Path | None, error: type[AgsegError], *, may_be_empty: bool = False) -> Node:
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

    def bind(self, kind: Any, *, forms: Forms | None = None, **given: Any) -> Any:
        """Bind this part of the file to the annotated type ``kind``.

        Parameters
        ----------
        forms
            See :class:`Form`.
        given
            Fields of a dataclass that are not in the file.
        """
        return _Binder(forms or {}).value(self, kind, given)

    def plain(self) -> Any:
        """As ordinary Python values."""
        return _Binder({}).plain(self)


class _Binder:
    """From nodes to values; one per call, so that what an alias repeats is built once."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.constructor = SafeConstructor()
        self.built: dict[int, Any] = {}
        self.open: set[int] = set()

    def value(self, node: Node, kind: Any, given: Mapping[str, Any] | None = None) -> Any:
        """One node as the annotated type."""
        origin = typing.get_origin(kind)
        if kind is Node:
            return node
        if kind is Any:
            return self.plain(node)
        if kind in self.forms:
            form = self.forms[kind]
            written = self.value(node, form.written)
            return _made(node, lambda: form.make(written, node.path))
        if origin in (typing.Union, types.UnionType):
            return self.union(node, typing.get_args(kind))
        if origin is tuple:
            return self.sequence(node, typing.get_args(kind))
        if origin in (dict, Mapping):
            key, item = typing.get_args(kind)
            return {self.value(k, key): self.value(v, item) for k, v in node.pairs()}
        if dataclasses.is_dataclass(kind):
            return self.record(node, cast(type[Any], kind), given or {})
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self.choice(node, kind)
        return self.scalar(node, kind)

    def plain(self, node: Node) -> Any:
        """A node as ordinary Python values."""
        raw, key = node.raw, id(node.raw)
        if key in self.built:
            return self.built[key]
        if key in self.open:
            raise node.refuse_value("an alias that holds itself")
        self.open.add(key)
        try:
            if isinstance(raw, yaml.MappingNode):
                found: Any = {self.plain(k): self.plain(v) for k, v in node.pairs()}
            elif isinstance(raw, yaml.SequenceNode):
                found = [self.plain(item) for item in node.listed()]
            else:
                found = self.constructor.construct_object(raw, deep=True)
        except (yaml.YAMLError, ValueError, OverflowError) as problem:
            raise node.refuse_value("a value that plain YAML does not have") from problem
        finally:
            self.open.discard(key)
        self.built[key] = found
        return found

    def record(self, node: Node, kind: type[Any], given: Mapping[str, Any]) -> Any:
        hints = _hints(cast(Hashable, kind))
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in given}
        items = node.items()
        for key, value in items.items():
            if key not in fields:
                raise value.refuse(f"unknown key {key!r}", expected=f"one of {', '.join(fields)}")
        required = (n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING)
        missing = [name for name in required if name not in items]
        if missing:
            raise node.refuse(f"missing key {', '.join(map(repr, missing))}")
        values = {key: self.value(value, hints[key]) for key, value in items.items()}
        return _made(node, lambda: kind(**given, **values))

    def union(self, node: Node, kinds: tuple[Any, ...]) -> Any:
        if type(None) in kinds and isinstance(node.raw, yaml.ScalarNode) and self.plain(node) is None:
            return None
        choices = [kind for kind in kinds if kind is not type(None)]
        for kind in choices[:-1]:
            try:
                return self.value(node, kind)
            except AgsegError:
                continue
        return self.value(node, choices[-1])

    def sequence(self, node: Node, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
        items = node.listed()
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(self.value(item, kinds[0]) for item in items)
        if len(items) != len(kinds):
            raise node.refuse_value("a list of the wrong length", value=len(items), expected=len(kinds))
        return tuple(self.value(item, kind) for item, kind in zip(items, kinds, strict=True))

    def choice(self, node: Node, kind: type[Enum]) -> Enum:
        known = [str(member.value) for member in kind]
        if not isinstance(node.raw, yaml.ScalarNode) or node.raw.value not in known:
            found = repr(node.raw.value) if isinstance(node.raw, yaml.ScalarNode) else "this"
            raise node.refuse_value(f"{found} is not known", expected=f"one of {', '.join(known)}")
        return kind(node.raw.value)

    def scalar(self, node: Node, kind: type) -> Any:
        found: Any = self.plain(node)
        if kind is float and isinstance(found, str):
            # YAML 1.1 reads 1e-4 (without a dot) as text; people write it, and mean a number.
            with contextlib.suppress(ValueError):
                found = float(found)
        wrong_bool = isinstance(found, bool) and kind is not bool
        if wrong_bool or not isinstance(found, _SCALARS[kind]):
            raise node.refuse_value("a value of the wrong type", value=repr(found), expected=kind.__name__)
        if isinstance(found, float) and not math.isfinite(found):
            raise node.refuse_value("not a finite number", value=found)
        return kind(found)


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _made(node: Node, make: Callable[[], Any]) -> Any:
    """What ``make`` builds; what it refuses, with the line of the field concerned."""
    try:
        return make()
    except FieldError as problem:
        items = node.items() if isinstance(node.raw, yaml.MappingNode) else {}
        at = items.get(problem.field, node)
        raise at.refuse(f"{problem.field}: {problem.message}", value=problem.value, expected=problem.expected) from problem
    except ValueError as problem:
        raise node.refuse(str(problem)) from problem
    except AgsegError as problem:
        raise node.refuse(problem.sentence(), hint=problem.hint) from problem
