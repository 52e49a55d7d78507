"""YAML into frozen dataclasses, strictly: an unknown, missing, doubled or wrongly typed key is an error that names its line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agseg.errors import RecipeError
from agseg.io.absence import in_words

__all__ = ["bind", "load"]

T = TypeVar("T")

_SCALARS: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


def load(path: Path, kind: type[T]) -> T:
    """The dataclass ``kind`` that a YAML file describes.

    Raises
    ------
    RecipeError
        If the file cannot be read, is no YAML, or does not fit the dataclass; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the file cannot be read: {in_words(error)}", path=path) from error
    return bind(text, kind, path=path)


def bind(text: str, kind: type[T], *, path: Path | None = None) -> T:
    """The dataclass ``kind`` that YAML text describes; see :func:`load`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise RecipeError(f"{where}not valid YAML", path=path) from error
    if node is None:
        raise RecipeError("the file is empty", path=path)
    bound = _Binder(path).value(node, kind)
    return typing.cast(T, bound)


class _Binder:
    """Walks the node tree of one file, so that every refusal can say where it stands."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def refuse(self, node: yaml.Node, message: str, **data: Any) -> RecipeError:
        return RecipeError(f"line {node.start_mark.line + 1}: {message}", path=self.path, **data)

    def value(self, node: yaml.Node, kind: Any) -> Any:
        """One node as the annotated type."""
        origin = typing.get_origin(kind)
        if kind is Any:
            return self.plain(node)
        if origin in (typing.Union, types.UnionType):
            return self.union(node, typing.get_args(kind))
        if origin is tuple:
            return self.sequence(node, typing.get_args(kind))
        if origin in (dict, Mapping):
            key, item = typing.get_args(kind)
            return {self.value(k, key): self.value(v, item) for k, v in self.pairs(node)}
        if dataclasses.is_dataclass(kind):
            return self.record(node, typing.cast(type[Any], kind))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self.choice(node, kind)
        return self.scalar(node, kind)

    def plain(self, node: yaml.Node) -> Any:
        """A node as ordinary Python values."""
        if isinstance(node, yaml.MappingNode):
            return {self.plain(key): self.plain(value) for key, value in self.pairs(node)}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item) for item in node.value]
        return yaml.SafeLoader("").construct_object(node, deep=True)

    def pairs(self, node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
        """Key and value nodes of a mapping, each key once."""
        if not isinstance(node, yaml.MappingNode):
            raise self.refuse(node, "a mapping of keys to values is expected here")
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise self.refuse(key, f"the key {key.value!r} stands here twice")
            seen.add(key.value)
        return list(node.value)

    def record(self, node: yaml.Node, kind: type[Any]) -> Any:
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
        values: dict[str, Any] = {}
        for key, value in self.pairs(node):
            if key.value not in fields:
                raise self.refuse(key, f"unknown key {key.value!r}", expected=f"one of {', '.join(fields)}")
            values[key.value] = self.value(value, hints[key.value])
        required = (n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING)
        missing = [name for name in required if name not in values]
        if missing:
            raise self.refuse(node, f"missing key {', '.join(map(repr, missing))}")
        try:
            return kind(**values)
        except (ValueError, RecipeError) as error:
            said = error.sentence() if isinstance(error, RecipeError) else str(error)
            raise self.refuse(node, said) from error

    def union(self, node: yaml.Node, kinds: tuple[Any, ...]) -> Any:
        if type(None) in kinds and self.plain(node) is None:
            return None
        choices = [kind for kind in kinds if kind is not type(None)]
        for kind in choices[:-1]:
            try:
                return self.value(node, kind)
            except RecipeError:
                continue
        return self.value(node, choices[-1])

    def sequence(self, node: yaml.Node, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.refuse(node, "a list is expected here")
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(self.value(item, kinds[0]) for item in node.value)
        if len(node.value) != len(kinds):
            raise self.refuse(node, "a list of the wrong length", value=len(node.value), expected=len(kinds))
        return tuple(self.value(item, kind) for item, kind in zip(node.value, kinds, strict=True))

    def choice(self, node: yaml.Node, kind: type[Enum]) -> Enum:
        known = [str(member.value) for member in kind]
        if not isinstance(node, yaml.ScalarNode) or node.value not in known:
            raise self.refuse(node, f"{getattr(node, 'value', '?')!r} is not known", expected=f"one of {', '.join(known)}")
        return kind(node.value)

    def scalar(self, node: yaml.Node, kind: type) -> Any:
        found = self.plain(node)
        if kind is float and isinstance(found, str):
            # YAML 1.1 reads 1e-4 (without a dot) as text; people write it, and mean a number.
            try:
                return float(found)
            except ValueError:
                pass
        wrong_bool = isinstance(found, bool) and kind is not bool
        if wrong_bool or not isinstance(found, _SCALARS[kind]):
            raise self.refuse(node, "a value of the wrong type", value=repr(found), expected=kind.__name__)
        return kind(found)
