"""A site's defaults: ``--config FILE``, or ``$AGSEG_HOME/config.yaml``; the command line overrides them.

A key is an option's long name without dashes in front. At the top it holds for every command that has the option, in a section
named after a command for that command only::

    device: gpu
    segment:
      organ: [pancreas, liver]
      min-age: 300
    pacs:
      pull: {limit: 50}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from agseg.cli import options
from agseg.cli.summaries import Summaries
from agseg.errors import UsageError

if TYPE_CHECKING:
    from agseg.yaml_nodes import Node

CONFIG_NAME = "config.yaml"
"""The file in ``$AGSEG_HOME`` that is read where ``--config`` is not given."""

_OPTION = "--config"
_NOT_IN_A_FILE = frozenset({"help", "version", "config", "debug"})
"""Options that are no defaults of a site; ``--debug`` may quote headers and is asked for each time."""


_TOLD = "agseg.told"
"""Where a command's context keeps what the file says."""


@dataclass(frozen=True)
class Given:
    """What a file says for one option, and where."""

    key: str
    node: Node
    value: Any


@dataclass(frozen=True)
class Told:
    """What a file says for the command that runs."""

    values: list[Given]

    def explain(self, error: UsageError) -> None:
        """Name file and line of the value that a command refuses after its options have been read."""
        for given in self.values:
            for value in given.value if isinstance(given.value, list) else [given.value]:
                if str(error.value) == str(value) or (isinstance(value, str) and repr(value) in error.message):
                    error.path = given.node.path
                    said = f"The file says {given.key}: {value}. (line {given.node.line})"
                    error.hint = " ".join((said, error.hint or "")).strip()
                    return


def _take(context: typer.Context, given: Path | None) -> None:
    """Give a command its defaults from the file, before its other options are looked at."""
    if isinstance(context.command, TyperGroup):
        context.meta[CONFIG_NAME] = given
        return
    path = given or context.meta.get(CONFIG_NAME)
    if path is None:
        path = options.home() / CONFIG_NAME
        if not path.is_file():
            return
    names = context.command_path.split()[1:]
    given_values = _defaults(_read(path), context.find_root().command, names)
    context.default_map = {name: given.value for name, given in given_values.items()}
    _check_values(context, given_values)


def _check_values(context: typer.Context, values: dict[str, Given]) -> None:
    """Refuse what an option does not take, with file and line: the option itself knows neither.

    Raises
    ------
    UsageError
        With file, line, key and value.
    """
    told = context.meta[_TOLD] = Told([])
    for parameter in _keys(context.command).values():
        given = values.get(parameter.name)
        if given is not None:
            told.values.append(given)
            _check_value(context, parameter, given)


def _check_value(context: typer.Context, parameter: Any, given: Given) -> None:
    try:
        parameter.process_value(context, given.value)
    except typer.BadParameter as error:
        expected = error.message.removeprefix("Input should be ")
        message = f"{given.key!r} does not take this value"
        raise given.node.refuse(message, value=given.value, expected=expected) from error


def told_for(context: typer.Context, command: Any, options: dict[str, Node], *, refused: frozenset[str]) -> Told:
    """What a section says for another command than the one that runs, each value as its option takes it.

    Parameters
    ----------
    refused
        Options that cannot stand there.

    Raises
    ------
    UsageError
        For an option that the command does not have, and for what one does not take; with file and line.
    """
    known, told = _keys(command), Told([])
    for key, node in options.items():
        name = key.replace("_", "-")
        if name in refused:
            raise node.refuse(f"{name!r} cannot stand here", expected=f"another option of agseg {command.name}")
        if name not in known:
            near = get_close_matches(name, sorted(known.keys() - refused), n=1, cutoff=0.75)
            hint = f"Did you mean {near[0]}?" if near else f"agseg {command.name} --help"
            raise node.refuse(f"agseg {command.name} has no option {key!r}", hint=hint)
        told.values.append(Given(key, node, _value(known[name], key, node)))
        _check_value(context, known[name], told.values[-1])
    return told


Config = Annotated[
    Path | None,
    typer.Option(
        _OPTION, metavar="FILE", callback=_take, is_eager=True, expose_value=False,
        help="YAML of a site's defaults for these options; else $AGSEG_HOME/config.yaml.",
    ),
]  # fmt: skip


class Commands(Summaries):
    """The table of contents: what the root takes as ``--config``, each command takes too."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        shared = [parameter for parameter in self.params if _OPTION in parameter.opts]
        for command in _leaves(self):
            # A site's own file, which some commands take under this name, says everything itself.
            if not any(_OPTION in parameter.opts for parameter in command.params):
                command.params = [*command.params, *shared]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a value that is refused is repeated in the message, and said to be the file's if it is."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            wrong = getattr(error.__cause__, "errors", None)
            if wrong is not None:
                error.message = f"{error.message}, found {wrong()[0]['input']!r}"
            raise
        except UsageError as error:
            told = ctx.meta.get(_TOLD)
            if told is not None and error.path is None:
                told.explain(error)
            raise


def _leaves(command: Any) -> Iterator[Any]:
    if not isinstance(command, TyperGroup):
        yield command
        return
    for below in command.commands.values():
        yield from _leaves(below)


def _keys(command: Any) -> dict[str, Any]:
    """The options of a command by the names that a file gives them."""
    named = {
        name.removeprefix("--").replace("_", "-"): parameter
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--")
    }
    return {name: parameter for name, parameter in named.items() if name not in _NOT_IN_A_FILE}


def _read(path: Path) -> dict[str, Node]:
    from agseg.yaml_nodes import read

    return _mapping(read(path, error=UsageError, may_be_empty=True))


def _mapping(node: Node) -> dict[str, Node]:
    """Option names and their values; a section may be empty."""
    return {} if node.is_null else {key.replace("_", "-"): value for key, value in node.items().items()}


def _defaults(content: dict[str, Node], command: Any, names: list[str]) -> dict[str, Given]:
    """What the file says for the command that ``names`` lead to, by parameter name; everything in the file is checked."""
    below = command.commands if isinstance(command, TyperGroup) else {}
    known = {key for leaf in _leaves(command) for key in _keys(leaf)}
    found: dict[str, Node] = {}
    sections: dict[str, Given] = {}
    for key, value in content.items():
        if key in below:
            section = _defaults(_mapping(value), below[key], names[1:] if names[:1] == [key] else [])
            sections.update(section if names[:1] == [key] else {})
        elif key not in known:
            raise value.refuse(f"unknown key {key!r}", expected=f"one of {', '.join(sorted({*below, *known}))}")
        else:
            found[key] = value
    target = command
    for name in names:
        target = target.commands[name]
    if isinstance(target, TyperGroup):
        return {}
    mine = {key: parameter for key, parameter in _keys(target).items() if key in found}
    told = {parameter.name: Given(key, found[key], _value(parameter, key, found[key])) for key, parameter in mine.items()}
    return told | sections


def _value(parameter: Any, key: str, node: Node) -> Any:
    """A value as the option takes it: one word of a repeatable option is a list of one."""
    value = node.plain()
    several = bool(parameter.multiple)
    if several and not isinstance(value, list):
        value = [value]
    for item in value if several else [value]:
        if not isinstance(item, str | int | float | bool):
            raise node.refuse(f"the value of {key!r} is not one that an option takes", value=type(item).__name__)
    return value
