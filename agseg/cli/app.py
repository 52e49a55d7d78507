"""The ``agseg`` command: its table of contents, and the one place that turns errors into exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from agseg.cli import (
    classify_us,
    console,
    dataset,
    doctor,
    evaluate,
    export,
    finetune,
    inspect,
    listen,
    models,
    module,
    night,
    pacs,
    phantom,
    plan,
    prune_curve,
    recipe,
    segment,
    site_config,
    train,
    version,
    weights,
)
from agseg.cli.help_pages import Shelf
from agseg.errors import AgsegError, ExitCode


def _either_dash(token: str) -> str:
    """``--output_type`` and ``--output-type`` are the same option."""
    return token.replace("_", "-")


app = Shelf(
    name="agseg",
    cls=site_config.Commands,
    help="Clinical batch segmentation with attention-gated networks. Not for clinical decisions without review.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes leave help texts a third of 80 columns
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _either_dash},
)


@app.callback()
def _root(
    _version: Annotated[bool, version.Version] = False,
    _config: site_config.Config = None,
) -> None:
    """Options that stand before the command."""


segment.register(app)
inspect.register(app)
pacs.register(app)
phantom.register(app)
dataset.register(app)
plan.register(app)
recipe.register(app)
train.register(app)
finetune.register(app)
evaluate.register(app)
prune_curve.register(app)
export.register(app)
weights.register(app)
models.register(app)
doctor.register(app)
night.register(app)
listen.register(app)
module.register(app)
classify_us.register(app)


def main() -> None:
    """Run the command line and leave with the exit code of docs/hospital.md."""
    debug = "--debug" in sys.argv
    console.outlive_readers()
    console.speak_any_locale()
    try:
        code = _run(debug=debug)
    finally:
        # Also after a traceback that --debug shows: what is left in the buffers must not fail when Python ends.
        unsaid = console.lost()
    if unsaid is not None:
        code = _unsaid(unsaid, earned=code)
    sys.exit(code)


def _run(*, debug: bool) -> int:
    """The exit code that the command earned."""
    try:
        app()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else ExitCode.OK
    except AgsegError as error:
        if debug:
            raise
        console.fail(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if debug:
            raise
        # Only the kind of the error: its text may quote a header. --debug shows the rest.
        console.note(f"Error E_INTERNAL: unexpected {type(error).__name__}; this is a bug. Run again with --debug for details.")
        return ExitCode.BUG
    return ExitCode.OK


def _unsaid(why: OSError, *, earned: int) -> int:
    """The exit code of a command whose words did not fit where stdout leads."""
    from agseg.io.atomic import output_error

    error = output_error(why, "it cannot be written to", path=Path("standard output"))
    error.hint = f"The command itself ended with exit code {earned}; what it said is lost."
    console.fail(error)
    return earned if earned in (ExitCode.BUG, ExitCode.INTERRUPTED, ExitCode.TERMINATED) else ExitCode.OUTPUT
