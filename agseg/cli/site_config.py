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
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from agseg.cli import options
from agseg.cli.summaries import Summaries
from agseg.errors import UsageError

__all__ = ["CONFIG_NAME", "Commands", "Config"]

CONFIG_NAME = "config.yaml"
"""The file in ``$AGSEG_HOME`` that is read where ``--config`` is not given."""

_OPTION = "--config"
_NOT_IN_A_FILE = frozenset({"help", "version", "config", "debug"})
"""Options that are no defaults of a site; ``--debug`` may quote headers and is asked for each time."""


_TOLD = "agseg.told"
"""Where a command's context keeps what the file says."""


@dataclass(frozen=True)
class _Told:
    """What the file says for the command that runs: keys and values, those of a list one by one."""

    path: Path
    values: list[tuple[str, Any]]

    def explain(self, error: UsageError) -> None:
        """Say where the value stands that a command refuses after its options have been read."""
        for key, value in self.values:
            if str(error.value) == str(value) or (isinstance(value, str) and repr(value) in error.message):
                error.path = self.path
                error.hint = " ".join((f"The file says {key}: {value}.", error.hint or "")).strip()
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
    context.default_map = _defaults(_read(path), context.find_root().command, names, path=path)
    _check_values(context, path=path)


def _check_values(context: typer.Context, *, path: Path) -> None:
    """Refuse what an option does not take, with the file's name: the option itself would not know where it stood.

    Raises
    ------
    UsageError
        With file, key and value.
    """
    told = context.meta[_TOLD] = _Told(path, [])
    for key, parameter in _keys(context.command).items():
        value = (context.default_map or {}).get(parameter.name)
        if value is None:
            continue
        told.values.extend((key, one) for one in (value if isinstance(value, list) else [value]))
        try:
            parameter.process_value(context, value)
        except typer.BadParameter as error:
            expected = error.message.removeprefix("Input should be ")
            raise UsageError(f"{key!r} does not take this value", path=path, value=value, expected=expected) from error


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


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        from agseg.io.absence import in_words

        raise UsageError(f"the configuration cannot be read: {in_words(error)}", path=path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise UsageError(f"the configuration is not valid YAML{where}", path=path) from error
    return _mapping(content, path=path)


def _mapping(content: Any, *, path: Path) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError("the configuration must be a mapping of option names to values", path=path)
    return {str(key).replace("_", "-"): value for key, value in content.items()}


def _defaults(content: dict[str, Any], command: Any, names: list[str], *, path: Path) -> dict[str, Any]:
    """The defaults of the command that ``names`` lead to, by parameter name; everything in the file is checked."""
    below = command.commands if isinstance(command, TyperGroup) else {}
    known = {key for leaf in _leaves(command) for key in _keys(leaf)}
    found: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    for key, value in content.items():
        if key in below:
            section = _defaults(_mapping(value, path=path), below[key], names[1:] if names[:1] == [key] else [], path=path)
            sections.update(section if names[:1] == [key] else {})
        elif key not in known:
            raise UsageError(f"unknown key {key!r}", path=path, expected=f"one of {', '.join(sorted({*below, *known}))}")
        else:
            found[key] = value
    target = command
    for name in names:
        target = target.commands[name]
    if isinstance(target, TyperGroup):
        return {}
    mine = {key: parameter for key, parameter in _keys(target).items() if key in found}
    return {parameter.name: _value(parameter, key, found[key], path=path) for key, parameter in mine.items()} | sections


def _value(parameter: Any, key: str, value: Any, *, path: Path) -> Any:
    """A value as the option takes it: one word of a repeatable option is a list of one."""
    several = bool(parameter.multiple)
    if several and not isinstance(value, list):
        value = [value]
    for item in value if several else [value]:
        if not isinstance(item, str | int | float | bool):
            raise UsageError(f"the value of {key!r} is not one that an option takes", path=path, value=type(item).__name__)
    return value
