"""Two processes take the step of one that has all the samples; a signal ends a run with a checkpoint."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agseg.training.checkpoint import Checkpoint
from agseg.training.history import LOG, Progress
from agseg.training.loop import Batch, Score, train
from agseg.training.losses import focusnet_dice_loss, soft_dice_loss
from agseg.training.settings import LoopSettings, Optimiser

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 3


class Numbered:
    """Batch n of size b holds the samples n b to n b + b - 1, which their numbers alone make."""

    def __init__(self, size: int) -> None:
        self.size = size

    def batches(self, start: int, stop: int, *, stride: int = 1) -> Generator[Batch, None, None]:
        for number in range(start, stop, stride):
            samples = [_sample(number * self.size + place) for place in range(self.size)]
            yield Batch(torch.stack([image for image, _ in samples]), torch.stack([label for _, label in samples]))


def _sample(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    image = torch.randn(1, 6, 6, 4, generator=generator) * (1 + number % 3) + number % 2
    return image, (image[0] > 0.5).to(torch.uint8)


def _network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1))


LOSSES = {
    "soft-dice": lambda logits, batch: soft_dice_loss(logits, batch.target),
    "focusnet": lambda logits, batch: focusnet_dice_loss(logits, batch.target),
}


def _run(folder: Path, *, batch: int, loss: str, devices: int = 1) -> None:
    torch.set_num_threads(1)
    # Not Adam: the bias in front of a batch norm has no gradient, and Adam would make whole steps of its rounding.
    settings = LoopSettings(steps=STEPS, learning_rate=0.05, log_every=1, optimiser=Optimiser.SGD)
    train(
        _network(),
        source=Numbered(batch),
        loss=LOSSES[loss],
        settings=settings,
        folder=folder,
        accelerator="cpu",
        devices=devices,
    )


def _one_of_two(rank: int, port: int, folder: Path) -> None:
    """What torchrun gives a process."""
    facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "NODE_RANK": 0}
    os.environ.update({key: str(value) for key, value in facts.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"})
    for loss in LOSSES:
        _run(folder / loss / "two", batch=1, loss=loss, devices=2)


def _losses(folder: Path) -> list[float]:
    with (folder / LOG).open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_take_the_step_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    pair = [spawn.Process(target=_one_of_two, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(240)
    assert [process.exitcode for process in pair] == [0, 0]
    for loss in LOSSES:
        _run(tmp_path / loss / "one", batch=2, loss=loss)
        assert _losses(tmp_path / loss / "two") == pytest.approx(_losses(tmp_path / loss / "one"), abs=1e-5)
        one, two = (Checkpoint.read(tmp_path / loss / name / "last.pt").network for name in ("one", "two"))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            assert torch.allclose(tensor, two[key], atol=1e-5), f"{loss}: {key}"


@pytest.mark.slow
def test_a_signal_ends_a_run_with_a_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    settings = LoopSettings(steps=8, log_every=1, checkpoint_every=100)

    def send(news: Progress) -> None:
        if news.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    arguments: dict[str, Any] = {"source": Numbered(1), "loss": LOSSES["soft-dice"], "settings": settings, "accelerator": "cpu"}
    before = signal.getsignal(signal.SIGTERM)
    stopped = train(_network(), folder=tmp_path / "run", progress=send, **arguments)
    assert signal.getsignal(signal.SIGTERM) is before
    assert stopped.interrupted
    assert 3 < stopped.step < 8
    assert Checkpoint.read(tmp_path / "run/last.pt").step == stopped.step
    resumed = train(_network(), folder=tmp_path / "run", resume=True, **arguments)
    whole = train(_network(), folder=tmp_path / "whole", **arguments)
    assert not whole.interrupted
    mine, theirs = resumed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_logged_loss_is_the_mean_since_the_line_before_and_a_score_has_parts(tmp_path: Path) -> None:
    heard: list[Progress] = []
    settings = LoopSettings(steps=4, log_every=2, validate_every=4)
    each = LoopSettings(steps=4, log_every=1)
    arguments: dict[str, Any] = {"source": Numbered(1), "loss": LOSSES["soft-dice"], "accelerator": "cpu"}
    train(_network(), folder=tmp_path / "each", settings=each, **arguments)
    score = Score(0.5, {"liver": 0.6, "tumour": 0.4})
    train(_network(), folder=tmp_path / "mean", settings=settings, validate=lambda _: score, progress=heard.append, **arguments)
    a, b, c, d = _losses(tmp_path / "each")
    assert _losses(tmp_path / "mean") == pytest.approx([(a + b) / 2, (c + d) / 2], abs=1e-5)
    assert [news.parts for news in heard] == [{}, {"liver": 0.6, "tumour": 0.4}]
