"""Loaded networks: strict loading, batch norm folded in, device and precision set."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agseg.errors import UsageError
from agseg.inference.predict import probabilities
from agseg.inference.predictor import Scores
from agseg.models.catalogue import check_depth, facts
from agseg.models.fold import fold_batch_norm
from agseg.models.load import load_strict
from agseg.models.precision import Precision
from agseg.models.registry import build_undrawn
from agseg.models.slice_wise import SliceWise
from agseg.weights.entry import WeightsEntry
from agseg.weights.input_spec import Carry

__all__ = ["Parts", "ReadyNetwork", "load_entry", "load_network"]


class ReadyNetwork:
    """One network or an ensemble of them, as a function from a batch of tiles to probabilities or logits.

    Parameters
    ----------
    modules
        The members; several are averaged after their softmax.
    device, precision
        Where and in which number format the arithmetic runs. Outputs are float32 or the precision's type.
    averages_logits
        Whether members (and mirror images) are averaged as they are, without a softmax: the outputs are then always logits.
    in_channels
        Channels of an image.
    owned
        Whether the modules are nobody else's: they are changed in place then, and copied otherwise, since a caller may go on
        training them.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        device: torch.device,
        precision: Precision,
        averages_logits: bool = False,
        in_channels: int = 1,
        owned: bool = False,
    ) -> None:
        self.device = device
        self.in_channels = in_channels
        self.averages_logits = averages_logits
        # Some networks do not stand half precision; they run in fp32 whatever was asked, and the record says so.
        whole = any(getattr(module, "full_precision_only", False) for module in modules)
        self.precision = Precision.FP32 if whole else precision
        self.modules = tuple(self._placed(module if owned else copy.deepcopy(module)) for module in modules)

    def _placed(self, module: nn.Module) -> nn.Module:
        dims = 3 if any(isinstance(m, nn.Conv3d) for m in module.modules()) else 2
        layout = torch.channels_last_3d if dims == 3 else torch.channels_last
        placed = module.eval().requires_grad_(False).to(device=self.device, dtype=self.precision.dtype)
        return placed.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]

    @property
    def scores(self) -> Scores:
        """What comes out: an ensemble's are probabilities, unless it averages logits."""
        if self.averages_logits:
            return Scores.RAW_LOGITS
        return Scores.PROBABILITIES if len(self.modules) > 1 else Scores.LOGITS

    @property
    def folds(self) -> tuple[ReadyNetwork, ...]:
        """Each member by itself, see :class:`~agseg.inference.predictor.FoldedPredictor`."""
        if len(self.modules) == 1:
            return (self,)
        return tuple(self._of([module], self.device, self.precision, owned=True) for module in self.modules)

    def moved(self, device: torch.device, precision: Precision) -> ReadyNetwork:
        """The same network elsewhere."""
        return self._of(self.modules, device, precision)

    def _of(
        self, modules: Sequence[nn.Module], device: torch.device, precision: Precision, *, owned: bool = False
    ) -> ReadyNetwork:
        return ReadyNetwork(
            modules,
            device=device,
            precision=precision,
            averages_logits=self.averages_logits,
            in_channels=self.in_channels,
            owned=owned,
        )

    @torch.inference_mode()
    def gates(self, batch: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients, see :class:`~agseg.inference.predictor.GatedPredictor`; of the first member.

        Raises
        ------
        UsageError
            If the network has no attention gates.
        """
        module = self.modules[0]
        if not hasattr(module, "attention"):
            raise UsageError(
                "these weights have no attention gates", value=type(module).__name__, hint="Leave --attention out."
            )
        found: dict[str, Tensor] = module.attention(  # type: ignore[operator]
            batch.to(device=self.device, dtype=self.precision.dtype)
        )
        return found

    @property
    def has_skips(self) -> bool:
        """Whether :meth:`skips` can be asked."""
        return hasattr(self.modules[0], "skips")

    @torch.inference_mode()
    def skips(self, batch: Tensor) -> dict[str, Tensor]:
        """What enters each gate, (batch, 1, *grid), by the gate's name; of the first member."""
        found: dict[str, Tensor] = self.modules[0].skips(  # type: ignore[operator]
            batch.to(device=self.device, dtype=self.precision.dtype)
        )
        return found

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> Tensor:
        """Score maps (batch, classes, *tile) of a batch (batch, channels, *tile)."""
        layout = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
        batch = batch.to(device=self.device, dtype=self.precision.dtype, memory_format=layout)
        if self.scores is not Scores.PROBABILITIES:
            scores: Tensor = self.modules[0](batch)
            if len(self.modules) == 1:
                return scores
            total = scores.float()
            for module in self.modules[1:]:
                total += module(batch)
            return total.div_(len(self.modules))
        return torch.stack([probabilities(module(batch)) for module in self.modules]).mean(dim=0)


def load_network(
    entry: WeightsEntry,
    paths: Sequence[Path],
    *,
    device: torch.device,
    precision: Precision = Precision.FP32,
    prune_depth: int | None = None,
) -> ReadyNetwork:
    """Build the entry's architecture and load its verified safetensors files, one member per file.

    Parameters
    ----------
    entry, paths
        The manifest entry and what :meth:`agseg.weights.cache.WeightsCache.ensure` returned for it.
    device, precision
        Where it will run.
    prune_depth
        ANU-Net only: nodes beyond this depth are neither built nor loaded.

    Raises
    ------
    UsageError
        If the architecture cannot be pruned; the message lists those that can.
    WeightsError
        If keys or shapes do not fit.
    """
    config: dict[str, Any] = dict(entry.config)
    if prune_depth is not None:
        check_depth(entry.architecture, config, prune_depth, weights=entry.id)
        config["depth"] = prune_depth
    modules = []
    for path in paths:
        module = build_undrawn(entry.architecture, config)
        load_strict(module, path, prune=prune_depth is not None)
        folded = fold_batch_norm(module.eval())
        modules.append(SliceWise(folded) if entry.input.is_flat else folded)
    return ReadyNetwork(
        modules,
        device=device,
        precision=precision,
        averages_logits=entry.input.carry is not Carry.PROBABILITIES,
        in_channels=facts(entry.architecture, entry.config).in_channels,
        owned=True,
    )


class Parts:
    """The networks of an entry with parts; one at a time is in memory.

    Parameters
    ----------
    entry, paths
        The entry, and its verified files in the entry's order.
    device, precision
        Where they will run.
    """

    def __init__(self, entry: WeightsEntry, paths: Sequence[Path], *, device: torch.device, precision: Precision) -> None:
        self._paths = dict(zip((file.filename for file in entry.files), paths, strict=True))
        self._parts = entry.part_entries()
        self.device, self.precision = device, precision

    def in_turn(self) -> Iterator[tuple[WeightsEntry, ReadyNetwork]]:
        """Each part as an entry of its own, and its network; the network before is let go first."""
        for part in self._parts:
            paths = [self._paths[file.filename] for file in part.files]
            yield part, load_network(part, paths, device=self.device, precision=self.precision)


def load_entry(
    entry: WeightsEntry,
    paths: Sequence[Path],
    *,
    device: torch.device,
    precision: Precision = Precision.FP32,
    prune_depth: int | None = None,
) -> ReadyNetwork | Parts:
    """:func:`load_network`, or the parts of an entry that has some."""
    if entry.parts:
        return Parts(entry, paths, device=device, precision=precision)
    return load_network(entry, paths, device=device, precision=precision, prune_depth=prune_depth)
