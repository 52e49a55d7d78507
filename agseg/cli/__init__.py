"""The command line: one thin file per command. Nothing below this room imports typer or rich."""
