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
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from agseg.errors import AgsegError, FieldError, RecipeError
from agseg.yaml_nodes import Node, Plain, compose, read

T = TypeVar("T")

_SCALARS: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


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
    return cast(T, bind_node(read(path, error=error), kind, forms=forms))


def bind(text: str, kind: type[T], *, path: Path | None = None, error: type[AgsegError] = RecipeError) -> T:
    """The dataclass ``kind`` that YAML text describes; see :func:`load`."""
    return cast(T, bind_node(compose(text, path, error), kind))


def bind_node(node: Node, kind: Any, *, forms: Forms | None = None, **given: Any) -> Any:
    """Bind a part of a file to the annotated type ``kind``.

    Parameters
    ----------
    forms
        See :class:`Form`.
    given
        Fields of a dataclass that are not in the file.

    Raises
    ------
    AgsegError
        As :func:`load`.
    """
    return _Binder(forms or {}).value(node, kind, given)


class _Binder:
    """From nodes to values; one per call, so that what an alias repeats is built once."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.plain = Plain()

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
