"""The only place that prints.

People's output goes to the terminal through rich: tables and progress on stdout and stderr, nothing of the kind where there
is no terminal (cron). A ``--json`` document is the only thing on stdout. Errors and logs go to stderr.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agseg.errors import AgsegError
from agseg.io.names import spelled_out, without_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LONGEST_WORD = 14
"""Letters of a word that a table's column does not break: a long organ's, with its comma. Digests and paths may break."""

CODES = ("E_", "W_")
"""What reason codes begin with: one that is broken is not found by a search."""

Advance = Callable[..., None]
"""``advance(done, total, text)``: how long work tells its progress."""


def speak_any_locale() -> None:
    """Write unencodable characters as backslash escapes instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Outliving(io.FileIO):
    """A standard stream whose reader may leave, or whose disk may fill: what is said from then on goes nowhere."""

    lost: OSError | None = None
    """Why something was lost; a reader that left did so on purpose."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def outlive_readers() -> None:
    """Let a reader that leaves (``| head``) end what is said, not what is done: the exit code is the one that was earned.

    The same holds for a stream that is closed from the start (``2>&-``). A stream that can take no more says so in the end,
    see :func:`lost`.
    """
    _open_closed()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors="backslashreplace")
        if isinstance(stream, io.TextIOWrapper):
            try:
                raw = _Outliving(stream.fileno(), "w", closefd=False)
            except io.UnsupportedOperation:
                continue  # A caller collects what is said in memory: nobody there can leave.
            said = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, said)


def _open_closed() -> None:
    """Put nothing in the place of closed standard streams: else the next file that is opened gets their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def lost() -> OSError | None:
    """Why stdout did not take everything that was said; None if it did, if its reader left, or if it was closed."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Outliving) else None


def stdout() -> Console:
    """The console for people's output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """The console for notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def is_terminal() -> bool:
    """Whether a person is likely to be watching."""
    return sys.stderr.isatty()


def document(content: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=not is_unicode, allow_nan=False) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line for people, on stderr."""
    stderr().print(without_controls(text), markup=False)


def print_table(table: Table) -> None:
    """A rich table on stdout."""
    stdout().print(table)


def print_line(text: str) -> None:
    """One line on stdout."""
    stdout().print(without_controls(text), markup=False)


def print_rows(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styles: Sequence[str] = (),
    whole_names: bool = True,
    right: Sequence[str] = (),
) -> None:
    """A plain table on stdout whose words stay whole where the terminal has the room; reason codes always do.

    Parameters
    ----------
    title, columns
        Headings; a table whose columns are all unnamed shows none.
    rows
        Plain text, not markup: a folder may be called ``[red]``.
    styles
        One for each row; none without them.
    whole_names
        Whether the first column, too, breaks nothing.
    right
        Columns of numbers.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True, show_header=any(columns))
    rows = [[without_controls(cell) for cell in row] for row in rows]
    cells = [[column, *(row[number] for row in rows)] for number, column in enumerate(columns)]
    natural = [max(cell_len(line) for text in column for line in text.split("\n")) for column in cells]
    least = [max((_least_width(word) for text in column for word in text.split()), default=0) for column in cells]
    if whole_names:
        least[0] = natural[0]
    widths = _fitted(natural, least, room=stdout().width - len(columns) + 1)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width, justify="right" if column in right else "left")
    for number, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style=styles[number] if styles else None)
    print_table(table)


def _least_width(word: str) -> int:
    return len(word) if word.startswith(CODES) else min(len(word), LONGEST_WORD)


def _fitted(natural: Sequence[int], least: Sequence[int], *, room: int) -> Sequence[int | None]:
    """Widths of columns that share the room, none below its least; where even these have no room, rich may decide."""
    if sum(least) > room:
        return [None] * len(natural)
    widths = list(natural)
    for _ in range(sum(widths) - room):
        widths[max(range(len(widths)), key=lambda number: widths[number] - least[number])] -= 1
    return widths


def fail(error: AgsegError) -> None:
    """Say what is wrong, which value, what was expected, and what to do."""
    console = stderr()
    where = f"{spelled_out(str(error.path))}: " if error.path is not None else ""
    console.print(f"Error {error.code}: {where}{without_controls(error.sentence())}", style="bold red", markup=False)
    if error.hint:
        console.print(f"  {without_controls(error.hint)}", markup=False)


def pace_of(done: float, total: float | None, *, elapsed_s: float) -> str:
    """``45 an hour, 1 h 20 min left``, by all that has been done so far; empty before anything has."""
    if done <= 0 or elapsed_s <= 0 or not total:
        return ""
    left_s = elapsed_s / done * max(total - done, 0)
    hours, minutes = divmod(round(left_s / 60), 60)
    left = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else "less than a minute"
    return f"{done / elapsed_s * 3600:.0f} an hour, {left} left"


@contextmanager
def progress(description: str, *, quiet: bool = False) -> Iterator[Advance]:
    """A progress bar with its pace and the time left on a terminal; silence elsewhere."""
    if quiet or not is_terminal() or os.environ.get("TERM") == "dumb":
        yield lambda *_args, **_kwargs: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(description, total=None, pace="")
        began = time.monotonic()

        def advance(done: float, total: float | None = None, text: str | None = None) -> None:
            pace = pace_of(done, total, elapsed_s=time.monotonic() - began)
            bar.update(task, completed=done, total=total, description=without_controls(text or description), pace=pace)

        yield advance


LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


class _Written(logging.Formatter):
    """Names of files are logged too: their control characters are written out."""

    def format(self, record: logging.LogRecord) -> str:
        return without_controls(super().format(record))


def setup_logging(*, verbose: bool = False, quiet: bool = False, debug: bool = False) -> None:
    """Logs to stderr: warnings by default, information with ``-v``, everything with ``--debug``."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=LOG_FORMAT, force=True)
    logging.getLogger("agseg").setLevel(level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Written(LOG_FORMAT))
        handler.setLevel(level)  # libraries that raise their own loggers' level (Lightning) are no louder than agseg
    # Libraries log header values (pydicom) and warn at import; nothing of a patient's may reach the log.
    logger = logging.getLogger("pydicom")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    if not debug:
        warnings.simplefilter("ignore")
