"""Told, not swapped: where a run takes packaged weights, which better tested ones the manifest names, and how to get them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agseg.weights.entry import WeightsEntry
from agseg.weights.files import SourceKind
from agseg.weights.manifest import Manifest
from agseg.weights.published import LicenceClass

BETTER_WEIGHTS = "better_weights"
"""The key of a record's environment."""


@dataclass(frozen=True)
class BetterWeights:
    """Weights with a published score that know the organs of a run.

    Parameters
    ----------
    mean_dice, of
        The score as published, and whose figure it is.
    command
        Gets them.
    """

    id: str
    mean_dice: float
    of: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """As in the record."""
        return {"id": self.id, "mean_dice": self.mean_dice, "of": self.of, "command": self.command}

    def sentence(self) -> str:
        """For a person."""
        return (
            f"These organs were segmented with weights that travel with agseg. Better tested: {self.id} (mean Dice "
            f"{self.mean_dice:g}, {self.of}). Get them: {self.command}; then --weights {self.id}."
        )


def better_weights(manifest: Manifest, chosen: Sequence[WeightsEntry], organs: Collection[str]) -> BetterWeights | None:
    """The best published score among weights that know all these organs; None unless every network of the run is packaged."""
    if not chosen or any(file.source.kind is not SourceKind.PACKAGED for entry in chosen for file in entry.files):
        return None
    modality = chosen[0].input.modality
    able = [found for found in _scored(manifest, modality, frozenset(organs)) if found.id not in {e.id for e in chosen}]
    return max(able, key=lambda found: found.mean_dice, default=None)


def _scored(manifest: Manifest, modality: str, organs: frozenset[str]) -> Iterator[BetterWeights]:
    for entry in manifest.entries:
        if entry.input.modality == modality and organs <= set(entry.labels.names):
            yield from _from(entry.id, entry.scores)
    for model in manifest.published.values():
        known = model.licence_class is LicenceClass.OPEN and model.id not in manifest.by_id
        if known and model.modality == modality and organs <= set(model.organs):
            yield from _from(model.id, model.scores)


def _from(weights_id: str, scores: dict[str, Any]) -> Iterator[BetterWeights]:
    score = scores.get("mean_dice")
    if isinstance(score, dict) and isinstance(score.get("value"), (int, float)):
        yield BetterWeights(weights_id, float(score["value"]), str(score.get("of", "")), f"agseg weights fetch {weights_id}")
