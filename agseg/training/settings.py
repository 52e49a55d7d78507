"""Optimisation settings of the training loop: frozen, every value checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from agseg.errors import RecipeError


class Optimiser(StrEnum):
    """Closed choice of optimisers."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


class Precision(StrEnum):
    """Lightning Fabric's names."""

    FP32 = "32-true"
    BF16 = "bf16-mixed"
    FP16 = "16-mixed"


class Schedule(StrEnum):
    """How the learning rate runs after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """Half a cosine down to zero at the last step."""
    POLY = "poly"
    """(1 - progress) ^ 0.9, as nnU-Net."""
    STEPS = "steps"
    """Multiplied by ``decay`` at each of ``milestones``."""


POLY_EXPONENT = 0.9


@dataclass(frozen=True)
class LoopSettings:
    """One run's optimisation.

    Parameters
    ----------
    steps
        Optimiser steps in the whole run.
    optimiser, learning_rate, weight_decay, betas, momentum, nesterov
        ``betas`` for Adam and AdamW, ``momentum`` and ``nesterov`` for SGD.
    schedule, warmup_steps, milestones, decay
        ``milestones`` are steps, ``decay`` a factor per milestone.
    accumulate
        Batches whose gradients are averaged into one step.
    clip_norm
        Largest gradient norm, or None.
    precision
        See :class:`Precision`.
    head_weights
        Deep supervision: one weight per output of ``network.heads``, or None to train ``network`` on its own output.
    average_decay
        Decay of the moving average of the weights that is validated and exported; 0 keeps none.
    freeze_norm_from
        Step from which batch norms keep their running statistics, so that training sees what inference sees; None: never.
    validate_every, checkpoint_every, log_every
        In optimiser steps; 0 switches validation off.
    seed
        Of every random number generator.
    frozen
        Prefixes of the tensors that stay as they are, e.g. ``encoder.``; their batch norms keep their statistics too.
    rates
        Prefix to what the learning rate is multiplied by there, e.g. ``{encoder.: 0.1}``; the longest that fits counts.
    """

    steps: int
    optimiser: Optimiser = Optimiser.ADAM
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = True
    schedule: Schedule = Schedule.CONSTANT
    warmup_steps: int = 0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = Precision.FP32
    head_weights: tuple[float, ...] | None = None
    average_decay: float = 0.0
    freeze_norm_from: int | None = None
    validate_every: int = 0
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0
    frozen: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} must be at least 1", value=getattr(self, name))
        if not self.learning_rate > 0:
            raise RecipeError("the learning rate must be positive", value=self.learning_rate)
        if not 0 <= self.average_decay < 1:
            raise RecipeError("the moving average's decay must lie in 0 to 1", value=self.average_decay)
        if self.schedule is Schedule.STEPS and not self.milestones:
            raise RecipeError("a schedule in steps needs milestones")
        if any(not factor > 0 for factor in self.rates.values()):
            raise RecipeError("a factor of the learning rate must be positive", value=self.rates)


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Learning rate of the optimiser step with this number (from 0)."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / (settings.warmup_steps + 1)
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    match settings.schedule:
        case Schedule.CONSTANT:
            factor = 1.0
        case Schedule.COSINE:
            factor = 0.5 * (1 + math.cos(math.pi * progress))
        case Schedule.POLY:
            factor = (1 - progress) ** POLY_EXPONENT
        case Schedule.STEPS:
            factor = settings.decay ** sum(step >= milestone for milestone in settings.milestones)
    return settings.learning_rate * factor


def parameter_groups(network: nn.Module, settings: LoopSettings) -> list[Any]:
    """What the optimiser moves: all parameters, or groups with their factor of the learning rate (``scale``).

    Frozen parameters get no gradient from here on.

    Raises
    ------
    RecipeError
        If a prefix fits no parameter, or nothing is left to train.
    """
    if not settings.frozen and not settings.rates:
        return list(network.parameters())
    named = dict(network.named_parameters())
    for prefix in (*settings.frozen, *settings.rates):
        if not any(name.startswith(prefix) for name in named):
            known = ", ".join(dict.fromkeys(f"{name.split('.')[0]}." for name in named))
            raise RecipeError("the network has no such part", value=prefix, expected=f"a prefix, such as {known}")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if name.startswith(settings.frozen):
            parameter.requires_grad_(False)
            continue
        fitting = [prefix for prefix in settings.rates if name.startswith(prefix)]
        factor = settings.rates[max(fitting, key=len)] if fitting else 1.0
        groups.setdefault(factor, []).append(parameter)
    if not groups:
        raise RecipeError("every part of the network is frozen", value=list(settings.frozen))
    return [{"params": parameters, "scale": factor} for factor, parameters in groups.items()]


def make_optimiser(parameters: Iterable[Any], settings: LoopSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, at the base learning rate."""
    chosen, rate, decay = list(parameters), settings.learning_rate, settings.weight_decay
    match settings.optimiser:
        case Optimiser.ADAM:
            return torch.optim.Adam(chosen, lr=rate, betas=settings.betas, weight_decay=decay)
        case Optimiser.ADAMW:
            return torch.optim.AdamW(chosen, lr=rate, betas=settings.betas, weight_decay=decay)
        case Optimiser.SGD:
            nesterov = settings.nesterov and settings.momentum > 0
            return torch.optim.SGD(chosen, lr=rate, momentum=settings.momentum, nesterov=nesterov, weight_decay=decay)
