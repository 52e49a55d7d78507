"""Where a prunable network comes from: an entry of the manifest, or the folder of a training run, in 3D or by slices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from agseg.errors import UsageError
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import ReadyNetwork, load_network
from agseg.inference.segment import Segmentation, Settings, segment_volume
from agseg.labels import LabelSet
from agseg.models.catalogue import facts
from agseg.models.load import load_strict
from agseg.models.precision import Precision
from agseg.models.registry import build
from agseg.training.trained_model import TrainedModel
from agseg.volume import Volume
from agseg.weights.entry import WeightsEntry


class PrunableNetwork(Protocol):
    """A network that can be cut off at several depths."""

    @property
    def name(self) -> str:
        """Of the entry or the run."""

    @property
    def labels(self) -> LabelSet:
        """What its masks hold."""

    @property
    def modality(self) -> str:
        """What it was trained on."""

    @property
    def tile(self) -> Tensor:
        """An empty tile, float32 ``[1, C, x, y, z]``."""

    @property
    def deepest(self) -> int:
        """The greatest depth."""

    def cut(self, depth: int, *, device: torch.device, precision: Precision) -> ReadyNetwork:
        """The network of a depth, with nothing beyond it read."""

    def segment(self, volume: Volume, network: ReadyNetwork, *, organs: Sequence[str]) -> Segmentation:
        """A scan's mask, and how long the network took."""

    def parameters(self, depth: int) -> int:
        """Of the network at a depth."""

    def read_bytes(self, depth: int) -> int:
        """Size of the tensors that a depth needs, as they are stored."""


def _on_meta(architecture: str, config: dict[str, Any], depth: int) -> Any:
    with torch.device("meta"):
        return build(architecture, {**config, "depth": depth})


@dataclass(frozen=True)
class PrunableEntry:
    """An entry of the manifest, and its files."""

    entry: WeightsEntry
    paths: Sequence[Path]

    @property
    def name(self) -> str:
        """The entry's id."""
        return self.entry.id

    @property
    def labels(self) -> LabelSet:
        """As the manifest says."""
        return self.entry.labels

    @property
    def modality(self) -> str:
        """As the manifest says."""
        return self.entry.input.modality

    @property
    def tile(self) -> Tensor:
        """One channel."""
        return torch.zeros(1, 1, *self.entry.input.tile)

    @property
    def deepest(self) -> int:
        """By the catalogue."""
        return facts(self.entry.architecture, self.entry.config).deepest

    def cut(self, depth: int, *, device: torch.device, precision: Precision) -> ReadyNetwork:
        """Only the tensors up to the depth are read from the file."""
        return load_network(self.entry, self.paths, device=device, precision=precision, prune_depth=depth)

    def segment(self, volume: Volume, network: ReadyNetwork, *, organs: Sequence[str]) -> Segmentation:
        """As ``agseg segment``."""
        return segment_with_entry(volume, network, self.entry, organs=organs)

    def parameters(self, depth: int) -> int:
        """Of all members."""
        network = _on_meta(self.entry.architecture, self.entry.config, depth)
        return len(self.paths) * sum(int(p.numel()) for p in network.parameters())

    def read_bytes(self, depth: int) -> int:
        """As stored in the files."""
        beyond = _on_meta(self.entry.architecture, self.entry.config, depth).is_beyond
        return sum(size for path in self.paths for key, size in _tensor_bytes(path).items() if not beyond(key))


@dataclass(frozen=True)
class PrunableRun:
    """The network of a training run.

    Raises
    ------
    UsageError
        If it has no second depth, or one of its outputs was not trained.
    """

    trained: TrainedModel
    _state: dict[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        recipe = self.trained.recipe
        chosen = recipe.network
        if facts(chosen.architecture, chosen.config).deepest < 2:
            raise UsageError(
                f"a run of {chosen.architecture} cannot be pruned",
                value=recipe.name,
                expected="an ANU-Net of two depths or more",
            )
        weights = recipe.loop.head_weights
        if weights is None or 0 in weights:
            raise UsageError(
                "an output of this run never learned: it is as it began",
                value=f"{recipe.name}, head_weights: {None if weights is None else list(weights)}",
                expected="a recipe with a weight above 0 for every depth (loop: head_weights)",
            )
        object.__setattr__(self, "_state", self.trained.bare().state_dict())

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.trained.recipe.name

    @property
    def labels(self) -> LabelSet:
        """What its outputs mean."""
        return self.trained.labels

    @property
    def modality(self) -> str:
        """Of the recipe."""
        return self.trained.recipe.input.modality

    @property
    def tile(self) -> Tensor:
        """Several slices at a time, where the network sees single ones."""
        return torch.zeros(1, 1, *self.trained.inference_spec.tile)

    @property
    def deepest(self) -> int:
        """By the catalogue."""
        chosen = self.trained.recipe.network
        return facts(chosen.architecture, chosen.config).deepest

    def cut(self, depth: int, *, device: torch.device, precision: Precision) -> ReadyNetwork:
        """The same weights in a network that is built to the depth."""
        chosen = self.trained.recipe.network
        network = build(chosen.architecture, {**chosen.config, "depth": depth})
        load_strict(network, {key: value.cpu() for key, value in self._state.items()}, prune=True)
        return replace(self.trained, network=network.eval()).ready().moved(device, precision)

    def segment(self, volume: Volume, network: ReadyNetwork, *, organs: Sequence[str]) -> Segmentation:
        """As ``agseg evaluate`` predicts."""
        settings = Settings(overlap=self.trained.recipe.input.overlap)
        spec, labels = self.trained.inference_spec, self.trained.labels
        return segment_volume(volume, network, spec=spec, labels=labels, organs=organs, settings=settings)

    def parameters(self, depth: int) -> int:
        """Batch norms included."""
        chosen = self.trained.recipe.network
        return sum(int(p.numel()) for p in _on_meta(chosen.architecture, chosen.config, depth).parameters())

    def read_bytes(self, depth: int) -> int:
        """As the checkpoint holds them."""
        chosen = self.trained.recipe.network
        beyond = _on_meta(chosen.architecture, chosen.config, depth).is_beyond
        return sum(value.numel() * value.element_size() for key, value in self._state.items() if not beyond(key))


def _tensor_bytes(path: Path) -> dict[str, int]:
    """Size of each tensor of a safetensors file, from its header: a length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: t["data_offsets"][1] - t["data_offsets"][0] for key, t in header.items() if key != "__metadata__"}
