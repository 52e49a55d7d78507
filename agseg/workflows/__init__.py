"""One verb each: what a command does, without typer and without printing."""
