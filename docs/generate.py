"""Writes docs/commands.md from the help texts, so that the reference cannot differ from the program."""

from __future__ import annotations

from pathlib import Path

import typer

from agseg.cli.app import app

HERE = Path(__file__).resolve().parent


def describe(command: typer.core.TyperCommand, name: str) -> list[str]:
    """One command: usage, help, and a table of its options."""
    context = typer.Context(command, info_name=name)
    lines = [f"## {name}", "", (command.help or "").strip(), "", "```", *command.get_usage(context).splitlines(), "```", ""]
    rows = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [row for row in rows if row is not None]
    if rows:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [
            f"| `{option.replace('|', chr(92) + '|')}` | {meaning.replace('|', chr(92) + '|')} |" for option, meaning in rows
        ]
        lines.append("")
    return lines


def main() -> None:
    """Walk the command tree."""
    root = typer.main.get_command(app)
    lines = ["# Commands", "", "Generated from the help texts. `_` and `-` are both accepted in long options.", ""]
    for name, command in sorted(root.commands.items()):
        members = getattr(command, "commands", None)
        if members is None:
            lines += describe(command, f"agseg {name}")
            continue
        for member, inner in sorted(members.items()):
            lines += describe(inner, f"agseg {name} {member}")
    (HERE / "commands.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
