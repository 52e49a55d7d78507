"""Exit code of a run, and of the parts of one run together."""

from __future__ import annotations

from collections.abc import Iterable

from agseg.errors import ExitCode
from agseg.report import StudyReport, StudyStatus

_ORDER = (ExitCode.BUG, ExitCode.OUTPUT, ExitCode.WEIGHTS, ExitCode.DEADLINE)
_SIGNALS = (ExitCode.TERMINATED, ExitCode.INTERRUPTED)


def exit_code_of(studies: tuple[StudyReport, ...], *, asked: set[ExitCode], caught: ExitCode | None) -> ExitCode:
    """One number for a run: a signal's, else the first that applies of 1, 8, 7, 9, 4, 3, and 5 where there was no study.

    A study that is deferred because it is still arriving does not count; an old rejection does.
    """
    if caught is not None:
        return caught
    for code in _ORDER:
        if code in asked:
            return code
    if not studies:
        return ExitCode.NO_STUDY
    good = sum(study.status in (StudyStatus.DONE, StudyStatus.SKIPPED) for study in studies)
    bad = sum(study.status in (StudyStatus.REJECTED, StudyStatus.FAILED) for study in studies)
    if not bad:
        return ExitCode.OK
    return ExitCode.SOME_NOT_DONE if good else ExitCode.NONE_DONE


def united_exit_code(studies: tuple[StudyReport, ...], parts: Iterable[ExitCode]) -> ExitCode:
    """What a single run over all the parts' studies would have said.

    Parameters
    ----------
    studies
        Of all parts.
    parts
        The exit code in each part's newest record.
    """
    asked = set(parts)
    return exit_code_of(studies, asked=asked, caught=next((code for code in _SIGNALS if code in asked), None))
