"""What a run leaves for other programs when it ends: numbers for Prometheus, a command of the site's own, a webhook."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agseg.errors import ExitCode, OutputError, UsageError
from agseg.io.atomic import write_text
from agseg.measure.review import review_list
from agseg.report import BatchReport, StudyReport
from agseg.threads import users_environment

_log = logging.getLogger(__name__)

WEBHOOK_SCHEMA = "agseg.webhook/1"

METRICS_MODE = 0o644
"""Whoever collects metrics is another user; there is nothing of a patient in them."""

COMMAND_S = 60.0
"""Seconds that the site's command may take."""

_SUCCESS = frozenset({ExitCode.OK, ExitCode.SOME_NOT_DONE, ExitCode.NO_STUDY, ExitCode.DEADLINE})
"""Runs that came to their end as a machine: that some studies were refused is about them."""

_LAST = "agseg_last_success_timestamp_seconds"


def prometheus_text(report: BatchReport, *, earlier: str = "") -> str:
    """The run in Prometheus' text format.

    Parameters
    ----------
    earlier
        The file of the run before: it keeps the time of the last success through runs that fail.
    """
    finished = datetime.fromisoformat(report.finished).timestamp()
    began = datetime.fromisoformat(report.started).timestamp()
    known = re.search(rf"^{_LAST} (\S+)$", earlier, re.MULTILINE)
    success = str(int(finished)) if report.exit_code in _SUCCESS else known[1] if known else "0"
    lines = [
        *_metric("agseg_run_timestamp_seconds", "When the last run ended.", {"": str(int(finished))}),
        *_metric("agseg_run_duration_seconds", "How long it took.", {"": f"{finished - began:g}"}),
        *_metric("agseg_run_exit_code", "Its exit code.", {"": str(int(report.exit_code))}),
        *_metric(_LAST, "When a run last came to its end.", {"": success}),
        *_metric(
            "agseg_studies",
            "Studies of the last run, by how they ended.",
            {f'{{status="{status}"}}': str(number) for status, number in report.counts.items()},
        ),
        *_metric(
            "agseg_new_failures",
            "Studies that were refused or failed for the first time.",
            {"": str(len(_new_failures(report)))},
        ),
        *_metric("agseg_review_studies", "Studies of the last run on the review list.", {"": str(len(review_list(report)))}),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, said: str, values: Mapping[str, str]) -> list[str]:
    return [f"# HELP {name} {said}", f"# TYPE {name} gauge", *(f"{name}{labels} {value}" for labels, value in values.items())]


def write_metrics(report: BatchReport, path: Path) -> None:
    """Write the file for the textfile collector of Prometheus' node exporter (its name must end in ``.prom``).

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        earlier = ""
    write_text(path, prometheus_text(report, earlier=earlier))
    path.chmod(METRICS_MODE)


def check_command(command: str) -> None:
    """Refuse, before the run, a command that cannot be started after it.

    Raises
    ------
    UsageError
        If it is empty or cannot be split into words.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command of --on-end cannot be split into words: {error}", value=command) from None
    if not words:
        raise UsageError("the command of --on-end is empty")


def run_command(command: str, report: BatchReport, record: Path) -> None:
    """Start the site's command and wait for it; no shell, and no name of a study among its words.

    Parameters
    ----------
    command
        Split into words as a shell would; the record's path comes behind them. Its environment has ``AGSEG_EXIT_CODE``,
        ``AGSEG_RUN_JSON`` and ``AGSEG_NEW_FAILURES``.
    record
        run.json.

    Raises
    ------
    OutputError
        If it cannot be started, fails, or takes longer than :data:`COMMAND_S`. The run itself is done.
    """
    environment = {
        **users_environment(),
        "AGSEG_EXIT_CODE": str(int(report.exit_code)),
        "AGSEG_RUN_JSON": str(record),
        "AGSEG_NEW_FAILURES": str(len(_new_failures(report))),
    }
    try:
        words = [*shlex.split(command), str(record)]
        # Its output goes to stderr: stdout may be a document (--json).
        done = subprocess.run(  # noqa: S603 - the site's own words, and no shell
            words, env=environment, stdin=subprocess.DEVNULL, stdout=2, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _failed(command, f"it took longer than {COMMAND_S:g} s") from None
    except OSError as error:
        raise _failed(command, f"it cannot be started ({os.strerror(error.errno or 0)})") from None
    if done.returncode:
        raise _failed(command, f"it ended with exit code {done.returncode}")


def _failed(command: str, why: str) -> OutputError:
    return OutputError(
        f"the command of --on-end failed: {why}", value=command, hint="The run is done and its record is written."
    )


def summary(report: BatchReport) -> dict[str, Any]:
    """The run in numbers, without a name, a path or anything else of a study; ``text`` is one line for people."""
    fresh, to_see = _new_failures(report), len(review_list(report))
    told = ", ".join(f"{number} {status}" for status, number in report.counts.items() if number) or "no study"
    news = f" ({len(fresh)} new)" if fresh else ""
    return {
        "schema": WEBHOOK_SCHEMA,
        "text": f"agseg: {told}{news}; {to_see} to look at first; exit code {int(report.exit_code)}",
        "version": report.version,
        "run_id": report.run_id,
        "started": report.started,
        "finished": report.finished,
        "exit_code": int(report.exit_code),
        "counts": report.counts,
        "new_failures": dict(sorted(Counter(str(study.code) for study in fresh).items())),
        "review_studies": to_see,
    }


def tell_webhook(url: str, report: BatchReport) -> None:
    """Post the :func:`summary`. If it does not arrive a line on stderr says so, and nothing else changes."""
    from agseg.io.webhook import post  # what speaks HTTP takes long to import

    why = post(url, summary(report))
    if why is not None:
        _log.warning("the webhook was not told: %s. The run is done and its record is written.", why)


def _new_failures(report: BatchReport) -> list[StudyReport]:
    return [study for study in report.studies if study.new and study.status in ("rejected", "failed")]
