"""How a run's end is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agseg.cli.training_options import say
from agseg.workflows.train import TrainingReport


def report(*, began_at: int, loss: float | None) -> TrainingReport:
    return TrainingReport("tiny", Path("run"), began_at, 6, 6, loss, None, {"train": 3}, 0.1)


def test_a_run_that_was_finished_already_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    finished = report(began_at=6, loss=None)
    say(finished, json=True, quiet=False)
    assert json.loads(capsys.readouterr().out)["loss"] is None
    say(finished, json=False, quiet=False)
    assert "step 6 of 6, nothing left to do" in capsys.readouterr().err


def test_a_run_that_took_steps_tells_its_loss(capsys: pytest.CaptureFixture[str]) -> None:
    say(report(began_at=0, loss=0.25), json=False, quiet=False)
    say(report(began_at=3, loss=None), json=False, quiet=False)
    first, second = capsys.readouterr().err.splitlines()
    assert "loss 0.250" in first
    assert "no finite loss" in second


def test_both_kinds_of_training_take_the_options_of_a_run() -> None:
    """Whatever a run's place holds can be asked for where one begins, from scratch or from another network."""
    from typer.main import get_command

    from agseg.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    train, finetune = ({option for p in commands[name].params for option in p.opts} for name in ("train", "finetune"))
    assert {"--attention", "--workers", "--cache", "--requeue", "--resume", "--steps", "--seed", "--set"} <= train & finetune
