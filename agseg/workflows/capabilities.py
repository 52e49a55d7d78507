"""What weights can be asked for, decided from the catalogue before anything is locked, fetched or read."""

from __future__ import annotations

from collections.abc import Sequence

from agseg.errors import UsageError, WeightsError
from agseg.laterality import left_right_pairs
from agseg.models.catalogue import Facts, check_depth, facts
from agseg.weights.entry import WeightsEntry
from agseg.weights.input_spec import Carry, InputSpec
from agseg.weights.manifest import Manifest


def facts_of(entry: WeightsEntry) -> Facts:
    """What the entry's network is.

    Raises
    ------
    UsageError
        If no network has the name of its architecture.
    """
    return facts(entry.architecture, entry.config)


def check_capabilities(
    entry: WeightsEntry, *, manifest: Manifest, prune_depth: int | None = None, attention: bool = False
) -> None:
    """Refuse what these weights cannot do.

    Raises
    ------
    UsageError
        For a depth that they do not have, or gates; the message lists the weights that can.
    WeightsError
        If a tile of the entry does not go through its network.
    """
    found = facts_of(entry)
    if prune_depth is not None:
        check_depth(entry.architecture, entry.config, prune_depth, weights=entry.id, able=_able(manifest, "deepest"))
    if attention and not found.has_gates:
        able = _able(manifest, "has_gates")
        raise UsageError(
            f"weights {entry.id!r} ({entry.architecture}) have no attention gates",
            value="--attention",
            hint=f"Leave --attention out; weights with gates: {', '.join(able) or 'none of the manifest'}.",
        )
    sides = entry.input.fixed_shape or entry.input.tile
    if not found.classifies_frames and not found.takes(sides):
        raise WeightsError(
            f"the tile of weights {entry.id!r} does not go through {entry.architecture}",
            value="x".join(map(str, sides)),
            expected=f"multiples of {' x '.join(map(str, found.side_multiples or (found.size_multiple,)))}",
            hint="Correct `input: tile` of the entry.",
        )


def check_mirror(entries: Sequence[WeightsEntry]) -> None:
    """Refuse mirroring where no network of the run could do it, or where left and right could not change places.

    Raises
    ------
    UsageError
        With the weights' ids, or the label that has no fellow.
    """
    networks = [network for entry in entries for network in (entry.parts or (entry,))]
    for network in networks:
        if _mirrors(network.input) and network.input.carry is Carry.PROBABILITIES:
            left_right_pairs({label.name: label.index for label in network.labels})
    if not any(_mirrors(network.input) for network in networks):
        raise UsageError(
            f"{', '.join(entry.id for entry in entries)}: trained without mirror images, so there are none to average with",
            value="--mirror",
            hint="Leave --mirror out: the masks are the same.",
        )


def _mirrors(spec: InputSpec) -> bool:
    """Along the axes that training mirrored, or along left and right, whose names change places."""
    return not spec.body_box if spec.carry is Carry.PROBABILITIES else bool(spec.mirror_axes)


def _able(manifest: Manifest, what: str) -> tuple[str, ...]:
    """Ids of the segmenting entries whose network has a depth to cut at, or gates."""
    least = 2 if what == "deepest" else 1
    able = (entry for entry in manifest.entries if entry.labels and int(getattr(facts_of(entry), what)) >= least)
    return tuple(entry.id for entry in able)
