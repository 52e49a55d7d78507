"""Laws of the training loop: resumed equals uninterrupted, averaged gradients, schedules, what is refused."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.errors import RecipeError
from agseg.training.checkpoint import BEST, LAST, Checkpoint
from agseg.training.history import Progress
from agseg.training.loop import Batch, TrainingResult, train
from agseg.training.settings import LoopSettings, Optimiser, Precision, Schedule, learning_rate_at


class Numbers:
    """Batches that are a function of their number; ``ask`` remembers which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def batches(self, start: int, stop: int, *, stride: int = 1) -> Generator[Batch, None, None]:
        for number in range(start, stop, stride):
            self.asked.append(number)
            generator = torch.Generator().manual_seed(number)
            image = torch.randn(2, 1, 8, 8, generator=generator)
            yield Batch(image, (image[:, 0] > 0).long())


class Tiny(nn.Module):
    """Two convolutions with batch norm, dropout (which draws random numbers) and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.one, self.two = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.two(self.body(x))
        return logits

    def heads(self, x: Tensor) -> list[Tensor]:
        features = self.body(x)
        return [self.one(features), self.two(features)]


def entropy(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits, batch.target)


def noisy(batch: Batch, generator: torch.Generator) -> Batch:
    return Batch(batch.image + torch.randn(batch.image.shape, generator=generator), batch.target)


def run(folder: Path, settings: LoopSettings, **options: object) -> TrainingResult:
    arguments: dict[str, object] = {"source": Numbers(), "loss": entropy, "accelerator": "cpu"}
    return train(Tiny(), settings=settings, folder=folder, **(arguments | options))  # type: ignore[arg-type]


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", list(Optimiser))
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path, optimiser: Optimiser) -> None:
    settings = LoopSettings(
        steps=9,
        optimiser=optimiser,
        learning_rate=0.05,
        schedule=Schedule.COSINE,
        warmup_steps=2,
        average_decay=0.9,
        accumulate=2,
        clip_norm=1.0,
        freeze_norm_from=7,
        checkpoint_every=100,
    )
    whole = run(tmp_path / "whole", settings, transform=noisy)
    run(tmp_path / "parts", settings, transform=noisy, stop_after=4)
    torch.randn(17)  # a new process starts with other random numbers
    parts = run(tmp_path / "parts", settings, transform=noisy, resume=True)
    assert whole.step == parts.step == 9
    assert same(whole.network, parts.network)
    first, second = Checkpoint.read(tmp_path / "whole" / LAST), Checkpoint.read(tmp_path / "parts" / LAST)
    assert all(torch.equal(first.network[key], second.network[key]) for key in first.network)


@pytest.mark.slow
def test_a_resumed_run_asks_only_for_the_batches_it_still_needs(tmp_path: Path) -> None:
    settings = LoopSettings(steps=6, accumulate=2)
    run(tmp_path, settings, stop_after=4)
    numbers = Numbers()
    run(tmp_path, settings, source=numbers, resume=True)
    assert numbers.asked == [8, 9, 10, 11]


def test_the_log_has_each_step_once_after_resuming_from_an_older_state(tmp_path: Path) -> None:
    settings = LoopSettings(steps=8, log_every=1, checkpoint_every=3)
    run(tmp_path, settings, stop_after=3)
    older = (tmp_path / LAST).read_bytes()
    run(tmp_path, settings, resume=True, stop_after=5)
    (tmp_path / LAST).write_bytes(older)
    run(tmp_path, settings, resume=True)
    lines = (tmp_path / "log.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, 9))
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_averaged_gradients_equal_one_large_batch(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.layer = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.layer(x)
            return logits

    class Pairs(Numbers):
        def batches(self, start: int, stop: int, *, stride: int = 1) -> Generator[Batch, None, None]:
            single = list(super().batches(2 * start, 2 * stop))
            for a, b in zip(single[::2], single[1::2], strict=True):
                yield Batch(torch.cat([a.image, b.image]), torch.cat([a.target, b.target]))

    common = {"optimiser": Optimiser.SGD, "learning_rate": 0.1, "steps": 3}
    networks = []
    for folder, source, accumulate in (("one", Pairs(), 1), ("two", Numbers(), 2)):
        settings = LoopSettings(accumulate=accumulate, **common)  # type: ignore[arg-type]
        result = train(Plain(), source=source, loss=entropy, settings=settings, folder=tmp_path / folder, accelerator="cpu")
        networks.append(result.network.state_dict())
    for key, value in networks[0].items():
        torch.testing.assert_close(value, networks[1][key], rtol=1e-5, atol=1e-6)


def test_every_weighted_head_learns_and_a_head_without_weight_does_not(tmp_path: Path) -> None:
    before = Tiny().state_dict()
    after = run(tmp_path, LoopSettings(steps=3, learning_rate=0.1, head_weights=(0.0, 1.0))).network.state_dict()
    assert torch.equal(before["one.weight"], after["one.weight"])
    assert not torch.equal(before["two.weight"], after["two.weight"])


def test_frozen_batch_norms_keep_their_statistics(tmp_path: Path) -> None:
    before = Tiny().state_dict()["body.1.running_mean"]
    frozen = run(tmp_path / "a", LoopSettings(steps=3, freeze_norm_from=0)).network.state_dict()["body.1.running_mean"]
    moving = run(tmp_path / "b", LoopSettings(steps=3)).network.state_dict()["body.1.running_mean"]
    assert torch.equal(before, frozen)
    assert not torch.equal(before, moving)


@pytest.mark.slow
def test_the_best_network_is_kept_apart_from_the_last(tmp_path: Path) -> None:
    scores = iter([0.2, 0.9, 0.5])
    modes: list[bool] = []

    def validate(network: nn.Module) -> float:
        modes.append(network.training)
        return next(scores)

    heard: list[Progress] = []
    settings = LoopSettings(steps=6, validate_every=2, log_every=2)
    result = run(tmp_path, settings, validate=validate, progress=heard.append)
    assert result.best_score == 0.9
    assert Checkpoint.read(tmp_path / BEST).step == 4
    assert Checkpoint.read(tmp_path / LAST).step == 6
    assert modes == [False, False, False]
    assert [news.score for news in heard] == [0.2, 0.9, 0.5]


def test_bfloat16_keeps_the_loss_in_float32(tmp_path: Path) -> None:
    kinds: list[torch.dtype] = []

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        kinds.append(logits.dtype)
        return entropy(logits, batch)

    run(tmp_path, LoopSettings(steps=2, precision=Precision.BF16), loss=loss)
    assert kinds == [torch.float32, torch.float32]


def test_a_used_folder_is_neither_overwritten_nor_resumed_as_another_run(tmp_path: Path) -> None:
    settings = LoopSettings(steps=2)
    run(tmp_path, settings, fingerprint="a")
    with pytest.raises(RecipeError, match="holds a run"):
        run(tmp_path, settings, fingerprint="a")
    with pytest.raises(RecipeError, match="another run"):
        run(tmp_path, settings, fingerprint="b", resume=True)
    with pytest.raises(RecipeError, match="no checkpoint"):
        run(tmp_path / "empty", settings, resume=True)


def test_the_learning_rate_rises_to_its_base_and_never_beyond() -> None:
    for schedule in Schedule:
        settings = LoopSettings(steps=100, learning_rate=0.01, schedule=schedule, warmup_steps=10, milestones=(50, 80))
        rates = [learning_rate_at(step, settings) for step in range(100)]
        assert rates[:10] == sorted(rates[:10])
        assert max(rates) == rates[10] == pytest.approx(0.01)
        assert rates[10:] == sorted(rates[10:], reverse=True)


def test_milestones_multiply_the_rate() -> None:
    settings = LoopSettings(steps=10, learning_rate=1.0, schedule=Schedule.STEPS, milestones=(3, 6), decay=0.1)
    assert [learning_rate_at(step, settings) for step in (2, 3, 6)] == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"average_decay": 1.0}, {"schedule": Schedule.STEPS}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        LoopSettings(**({"steps": 5} | wrong))  # type: ignore[arg-type]
