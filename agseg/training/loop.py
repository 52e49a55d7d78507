"""The one training loop: every network, two or three dimensions, CPU or GPU, one process or many.

Batches come from a :class:`BatchSource`, which gives the batch of any step on demand. A run that is stopped and resumed
therefore sees the same batches, and with the restored random numbers, optimiser and averages it ends with the same weights,
bit for bit on the CPU. Several processes (``torchrun``) take interleaved batches, average their gradients and normalise over
each other's samples, so that they take the step of one process with all of them.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from agseg.errors import RecipeError
from agseg.extras import require
from agseg.training.across import synchronise
from agseg.training.averaging import AveragedNetwork
from agseg.training.checkpoint import BEST, LAST, Checkpoint, random_state, restore_random_state
from agseg.training.history import History, Progress
from agseg.training.pace import Pace
from agseg.training.settings import LoopSettings, learning_rate_at, make_optimiser, parameter_groups
from agseg.training.stopping import StopRequest


@dataclass(frozen=True, eq=False)
class Batch:
    """What one forward pass learns from.

    Parameters
    ----------
    image
        float32 ``[B, C, *grid]``.
    target
        Labels ``[B, *grid]`` or classes ``[B]``, any integer or float type.
    known
        Classes that the labels tell apart, None for all (:mod:`agseg.training.partial_loss`).
    """

    image: Tensor
    target: Tensor
    known: tuple[int, ...] | None = None


class BatchSource(Protocol):
    """Gives the batches from a position on; the position alone decides what they are."""

    def batches(self, start: int, stop: int, *, stride: int = 1) -> Generator[Batch, None, None]:
        """The batches number ``start``, ``start + stride``, … below ``stop``; closing it ends the processes that draw."""
        ...


@dataclass(frozen=True)
class Score:
    """A validation's score, of which more is better, and what it is made of, by name."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A finished run: the network as it is to be exported (averaged where an average is kept), and its figures.

    ``began_at`` is the step it went on from; where that is ``step``, nothing was left to do and there is no loss (NaN).
    ``interrupted`` says that a signal ended it, with a checkpoint.
    """

    network: nn.Module
    began_at: int
    step: int
    loss: float
    best_score: float | None
    folder: Path
    interrupted: bool = False


Loss = Callable[[Tensor, Batch], Tensor]
"""Logits of one head and the batch -> scalar."""

Transform = Callable[[Batch, torch.Generator], Batch]
"""Augmentation on the device; the generator depends on seed and batch number only."""

Validate = Callable[[nn.Module], float | Score]
"""The product's own prediction over the validation cases -> a score of which more is better."""


class _Trainee(nn.Module):
    """A network with all its outputs behind ``forward``, which is the call that gradient averaging listens to."""

    def __init__(self, network: nn.Module, *, every_head: bool) -> None:
        super().__init__()
        self.network, self.every_head = network, every_head

    def forward(self, x: Tensor) -> list[Tensor]:
        return cast(Any, self.network).heads(x) if self.every_head else [self.network(x)]


def train(
    network: nn.Module,
    *,
    source: BatchSource,
    loss: Loss,
    settings: LoopSettings,
    folder: Path,
    transform: Transform | None = None,
    validate: Validate | None = None,
    watch: Callable[[int, nn.Module], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    resume: bool = False,
    fingerprint: str = "",
    accelerator: str = "auto",
    devices: int | str = 1,
    stop_after: int | None = None,
) -> TrainingResult:
    """Train ``network`` in place; ``last.pt``, ``best.pt``, ``log.csv``, ``curves.png`` and TensorBoard's events go there.

    Parameters
    ----------
    loss
        Called once per head with the logits in float32.
    validate
        Called every ``settings.validate_every`` steps on the (averaged) network in evaluation mode, on the first process.
    watch
        Called with step and network after each validation, on the first process: for pictures, not for scores.
    resume
        Go on from ``last.pt``; without it, a folder that holds one is refused.
    fingerprint
        What this run is (data, recipe); a resumed run must have the same.
    stop_after
        Leave after this step with a checkpoint: for schedulers with a time limit, and for tests.

    Raises
    ------
    RecipeError
        If there is nothing to resume, something that would be overwritten, or another run in the folder.
    """
    fabric = _launch(settings, accelerator=accelerator, devices=devices)
    fabric.seed_everything(settings.seed, verbose=False)
    run = _Run(fabric, network, settings, folder, fingerprint, loss, transform)
    run.start(resume=resume)
    history = History.open(folder, from_step=run.step, writes=fabric.is_global_zero)
    stop = settings.steps if stop_after is None else min(settings.steps, stop_after)
    began, began_at, value, score = time.monotonic(), run.step, float("nan"), None
    losses: list[float] = []
    asked = StopRequest()
    stream = source.batches(
        run.step * settings.accumulate * fabric.world_size + fabric.global_rank,
        settings.steps * settings.accumulate * fabric.world_size,
        stride=fabric.world_size,
    )
    with asked, closing(stream):
        while run.step < stop and not run.told_to_stop:
            with run.pace.step():
                value = run.take_step(stream, stop=asked.came)
            losses.append(value)
            due = run.step == settings.steps
            if validate is not None and settings.validate_every and (due or run.step % settings.validate_every == 0):
                score = run.validate(validate)
                if watch is not None and fabric.is_global_zero:
                    watch(run.step, run.exported())
            if due or run.step % settings.log_every == 0:
                pace = (time.monotonic() - began) / (run.step - began_at)
                parts = {} if score is None else score.parts
                mean = sum(losses) / len(losses)
                found = None if score is None else score.value
                news = Progress(run.step, settings.steps, mean, run.rate, pace, found, parts, run.pace.told())
                history.add(news)
                score, losses = None, []
                if progress is not None and fabric.is_global_zero:
                    progress(news)
            if due or run.step == stop or run.told_to_stop or run.step % settings.checkpoint_every == 0:
                run.save(folder / LAST)
    history.close()
    fabric.barrier()  # a process that left early would pull the others down with it
    return TrainingResult(run.exported(), began_at, run.step, value, run.best_score, folder, run.step < stop)


def _launch(settings: LoopSettings, *, accelerator: str, devices: int | str) -> Any:
    lightning = require("lightning_fabric", purpose="training")
    fabric = lightning.Fabric(accelerator=accelerator, devices=devices, precision=str(settings.precision))
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Take the process group down in order; a group that is alive when Python ends aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Run:
    """A run's moving parts: network, optimiser, average, counters."""

    def __init__(
        self,
        fabric: Any,
        network: nn.Module,
        settings: LoopSettings,
        folder: Path,
        fingerprint: str,
        loss: Loss,
        transform: Transform | None,
    ) -> None:
        self.fabric, self.network, self.settings, self.folder = fabric, network, settings, folder
        self.fingerprint, self.loss, self.transform = fingerprint, loss, transform
        self.step, self.best_score = 0, None
        self.told_to_stop, self.pace = False, Pace(fabric.world_size)
        if fabric.world_size > 1:
            synchronise(network)
        self.rate = learning_rate_at(0, settings)
        self.average = AveragedNetwork(network, settings.average_decay) if settings.average_decay else None
        optimiser = make_optimiser(parameter_groups(network, settings), settings)
        trainee = _Trainee(network, every_head=settings.head_weights is not None)
        self.trainee, self.optimiser = fabric.setup(trainee, optimiser)
        if self.average is not None:
            self.average.to(fabric.device)

    best_score: float | None

    def start(self, *, resume: bool) -> None:
        last = self.folder / LAST
        if not resume:
            if last.exists():
                raise RecipeError("the folder holds a run already", path=self.folder, hint="resume it or name another folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        state = Checkpoint.read(last)
        if state.fingerprint != self.fingerprint:
            raise RecipeError(
                "the folder holds another run", path=self.folder, hint="use the recipe and data it was started with"
            )
        self.network.load_state_dict(state.network)
        self.optimiser.load_state_dict(state.optimiser)
        if self.average is not None and state.averaged is not None:
            self.average.network.load_state_dict(state.averaged)
        self.step, self.best_score = state.step, state.best_score
        restore_random_state(state.random)

    def take_step(self, stream: Iterator[Batch], *, stop: bool = False) -> float:
        """One optimiser step; the mean loss of its batches. With ``stop`` on one process it is the last one of all."""
        self._set_mode()
        settings = self.settings
        self.rate = learning_rate_at(self.step, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * group.get("scale", 1.0)
        total = 0.0
        for part in range(settings.accumulate):
            last = part == settings.accumulate - 1
            batch = self._fetch(stream, part)
            with self.fabric.no_backward_sync(self.trainee, enabled=not last):
                value = self._loss(batch) / settings.accumulate
                self.fabric.backward(value)
            total += float(value.detach())
        if settings.clip_norm is not None:
            self.fabric.clip_gradients(self.trainee, self.optimiser, max_norm=settings.clip_norm, error_if_nonfinite=False)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.update(self.network, self.step)
        told = torch.tensor([total, float(stop)], device=self.fabric.device)
        mean, stopping = self.fabric.all_reduce(told, reduce_op="mean").tolist()
        self.told_to_stop = stopping > 0
        return float(mean)

    def _fetch(self, stream: Iterator[Batch], part: int) -> Batch:
        batch, device = self.pace.next_of(stream), self.fabric.device
        image, target = batch.image.to(device, non_blocking=True), batch.target.to(device, non_blocking=True)
        moved = Batch(image, target, batch.known)
        if self.transform is None:
            return moved
        number = (self.step * self.settings.accumulate + part) * self.fabric.world_size + self.fabric.global_rank
        generator = torch.Generator(device=device).manual_seed(self.settings.seed * 1_000_003 + number)
        return self.transform(moved, generator)

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self.trainee(batch.image)
        weights = self.settings.head_weights or (1.0,)
        if len(outputs) != len(weights):
            raise RecipeError("head_weights do not fit the network", value=len(weights), expected=len(outputs))
        terms = [w * self.loss(logits.float(), batch) for w, logits in zip(weights, outputs, strict=True) if w]
        return torch.stack(terms).sum()

    def _set_mode(self) -> None:
        self.network.train()
        if self.settings.freeze_norm_from is not None and self.step >= self.settings.freeze_norm_from:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        for name, module in self.network.named_modules():
            if self.settings.frozen and f"{name}.".startswith(self.settings.frozen):
                module.eval()

    def validate(self, validate: Validate) -> Score:
        """Score of the network as it would be exported; the best one is kept."""
        found: float | Score = 0.0
        if self.fabric.is_global_zero:
            with torch.inference_mode():
                found = validate(self.exported())
        found = self.fabric.broadcast(found)
        score = found if isinstance(found, Score) else Score(float(found))
        if self.best_score is None or score.value > self.best_score:
            self.best_score = score.value
            self.save(self.folder / BEST)
        return score

    def exported(self) -> nn.Module:
        """The averaged network where there is one, in evaluation mode."""
        network = self.network if self.average is None else self.average.network
        return network.eval()

    def save(self, path: Path) -> None:
        if not self.fabric.is_global_zero:
            return
        averaged = None if self.average is None else self.average.network.state_dict()
        state = Checkpoint(
            step=self.step,
            network=self.network.state_dict(),
            averaged=averaged,
            optimiser=self.optimiser.state_dict(),
            best_score=self.best_score,
            random=random_state(),
            fingerprint=self.fingerprint,
        )
        state.write(path)
