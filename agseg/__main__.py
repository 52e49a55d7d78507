"""The ``agseg`` command, and ``python -m agseg``: begin what takes longest, then read the command line.

Importing torch is most of the time that a run over one small study takes. So the process that will hold the network starts
before this one has imported anything: a guess from the bare words, wrong only at the cost of some processor time.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from agseg.threads import settle_threads

MODEL_IMPORTS = {"segment": "agseg.workflows.model_imports"}
"""What the model process of a command imports."""

_OBJECTS_BEFORE_COLLECTION = 20_000
"""Imports make many objects and no garbage; at Python's own threshold, 700, looking for it takes a tenth of their time."""

_WITHOUT_MODEL = frozenset({"-h", "--help", "--dry-run", "--cluster"})


def main() -> None:
    """Run the command line and leave with its exit code."""
    settle_threads()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    first = expected_imports(sys.argv[1:])
    try:
        with nullcontext() if first is None else _started(first):
            from agseg.cli.app import main as run

            run()
    finally:
        # Python's last look for garbage takes 0.07 s, and the system takes all memory back anyway.
        gc.freeze()


@contextmanager
def _started(first: str) -> Iterator[None]:
    from agseg import spawn

    spawn.start_ahead(first, debug="--debug" in sys.argv)
    try:
        yield
    finally:
        spawn.end_ahead()


def expected_imports(words: Sequence[str]) -> str | None:
    """The module that a model process of this command line would begin with; None if it is not likely to need one.

    Where an output folder has the record of a run already, a night often finds nothing new, so the run decides for itself.
    What a site's configuration says is not read here.
    """
    first = MODEL_IMPORTS.get(words[0]) if words else None
    options = {word.partition("=")[0] for word in words}
    if first is None or _WITHOUT_MODEL & options:
        return None
    if "--overwrite" in options:
        return first
    output = "agseg-out"
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option in ("-o", "--output"):
            output = value
        elif option.startswith("--output="):
            output = option.removeprefix("--output=")
    return None if os.path.exists(os.path.join(output, "run.json")) else first  # noqa: PTH110, PTH118 - pathlib is slow to import


if __name__ == "__main__":
    main()
