"""Laws of checkpoints: what is written is read, random numbers go on where they stopped, damage is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.errors import RecipeError
from agseg.training.checkpoint import Checkpoint, random_state, restore_random_state


def checkpoint() -> Checkpoint:
    return Checkpoint(
        step=7,
        network={"a": torch.arange(4.0)},
        averaged=None,
        optimiser={"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        best_score=0.5,
        random=random_state(),
        fingerprint="abc",
    )


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_every_generator_goes_on_where_it_stopped(tmp_path: Path) -> None:
    checkpoint().write(tmp_path / "last.pt")
    expected = draws()
    assert draws() != expected
    restore_random_state(Checkpoint.read(tmp_path / "last.pt").random)
    assert draws() == expected


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoint().write(tmp_path / "last.pt")
    back = Checkpoint.read(tmp_path / "last.pt")
    assert (back.step, back.best_score, back.fingerprint) == (7, 0.5, "abc")
    assert torch.equal(back.network["a"], torch.arange(4.0))
    assert back.optimiser == checkpoint().optimiser


def test_writing_leaves_no_other_file_and_replaces_the_former(tmp_path: Path) -> None:
    for _ in range(2):
        checkpoint().write(tmp_path / "last.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "last.pt"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(RecipeError):
        Checkpoint.read(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint().write(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecipeError):
        Checkpoint.read(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99, "step": 1}, tmp_path / "last.pt")
    with pytest.raises(RecipeError, match="another format"):
        Checkpoint.read(tmp_path / "last.pt")


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "step": Path("x")}, tmp_path / "last.pt")
    with pytest.raises(RecipeError):
        Checkpoint.read(tmp_path / "last.pt")
