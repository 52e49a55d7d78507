"""Help that fits a terminal of 80 columns: option names beside their meaning, and each command with its whole summary."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from agseg.cli.help_pages import COMMANDS
from agseg.errors import UsageError


class Summaries(TyperGroup):
    """A group whose help cuts no command's summary short, and that takes no long option with one dash for a short one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``help COMMAND`` is ``COMMAND --help``."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named; ``-out`` is refused, which would be read as ``-o ut``."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, TyperGroup):
            _check_dashes(command, rest)
        return name, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name and first sentence of every command; the many of the table of contents by what they are for."""
        told = {name: command.get_short_help_str(limit=1000) for name, command in self.commands.items()}
        groups = {title: names for title, names in COMMANDS.items() if set(names) & told.keys()} if ctx.parent is None else {}
        placed = {name for names in groups.values() for name in names}
        rest = tuple(name for name in told if name not in placed)
        for title, names in [*groups.items(), ("More" if groups else "Commands", rest)]:
            rows = [(name, told[name]) for name in names if name in told]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _check_dashes(command: Any, words: list[str]) -> None:
    long = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    for word in words:
        if word == "--":
            return
        typed = word.partition("=")[0]
        if len(typed) < 3 or not typed.startswith("-") or typed.startswith("--"):
            continue
        meant = [option for option in long if option.startswith(f"-{typed}")]
        if meant:
            raise UsageError(
                f"{typed} would be read as {typed[:2]} {typed[2:]}", expected=f"{' or '.join(meant)}, with two dashes"
            )
