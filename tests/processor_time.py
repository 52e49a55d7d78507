"""What each test costs in processor time, its child processes included: the measure by which tests are marked slow.

Wall time says more of the machine's other users than of a test, so it is not asked. Nothing fails here: a run ends with the
names of tests that should be marked, and ``--processor-times=FILE`` writes what each one took.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

SLOW_S = 5.0
"""A test that needs more than this (seconds) is slow. Far above most, so that a busy machine does not change what is."""

_SPENT = pytest.StashKey[float]()
_costs: list[tuple[str, float, bool]] = []


def _processor_s() -> float:
    """Of this process and of the children that have ended."""
    return sum(os.times()[:4])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-times", type=Path, metavar="FILE", help="write the processor time of each test (CSV)")


def _measured(item: pytest.Item) -> Generator[None, object, object]:
    before, had_torch = _processor_s(), "torch" in sys.modules
    try:
        return (yield)
    finally:
        # Whichever test comes first in a process imports torch for all.
        counts = had_torch or "torch" not in sys.modules
        item.stash[_SPENT] = item.stash.get(_SPENT, 0.0) + (_processor_s() - before if counts else 0.0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _measured(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _measured(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield from _measured(item))
    finally:
        # A report carries this to the process that prints, where tests run in several.
        item.user_properties.append(("processor_s", round(item.stash[_SPENT], 3)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        _costs.extend(
            (report.nodeid, float(str(value)), "slow" in report.keywords)
            for name, value in report.user_properties
            if name == "processor_s"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # one of several processes: the one that collects their reports tells
    found = sorted(_costs, key=lambda cost: -cost[1])
    unmarked = [cost for cost in found if cost[1] > SLOW_S and not cost[2]]
    if unmarked:
        terminalreporter.section(f"over {SLOW_S:g} s of processor time and not marked slow")
        for name, seconds, _ in unmarked:
            terminalreporter.line(f"{seconds:6.1f} s {name}")
    path = config.getoption("--processor-times")
    if path is not None:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([("test", "processor_s", "slow"), *found])
