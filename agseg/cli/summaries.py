"""Help that fits a terminal of 80 columns: option names beside their meaning, and each command with its whole summary."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["Summaries"]


class Summaries(TyperGroup):
    """A group whose help cuts no command's summary short."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name and first sentence of every command."""
        told = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(told)
