"""Which coarse weights take the first look (``--scout auto|off|ID``), decided before anything is read."""

from __future__ import annotations

import math

from agseg.errors import UsageError
from agseg.weights.entry import WeightsEntry
from agseg.weights.files import SourceKind
from agseg.weights.input_spec import Placement
from agseg.weights.manifest import Manifest

AUTO, OFF = "auto", "off"

LEAST_GAIN = 2.0
"""``auto`` looks first only where the coarse grid has at least so many times fewer voxels."""


def choose_scout(
    manifest: Manifest, entry: WeightsEntry, *, organs: tuple[str, ...], wanted: str, named: bool
) -> WeightsEntry | None:
    """The weights that look first for the organs of ``entry``, or None.

    ``auto`` takes packaged weights, and only where it pays: for some organs of an imported network that were asked for by name,
    on a grid that is clearly finer. Packaged networks are never preceded by another. For weights that their publisher crops to
    organs of others, ``auto`` takes the coarsest of the packaged and the imported weights that know all of these.

    Parameters
    ----------
    organs
        What ``entry`` is to make.
    wanted
        The option.
    named
        Whether the user asked for organs by name.

    Raises
    ------
    UsageError
        If the weights that were named do not know one of the organs, or need no grid.
    """
    if wanted == OFF or entry.input.body_box or entry.id == wanted:
        return None
    sought = entry.crop_to or organs
    if wanted != AUTO:
        scout = manifest.entry(wanted)
        if scout.input.modality != entry.input.modality:
            raise UsageError(
                f"weights {wanted!r} look at scans of another modality",
                value=scout.input.modality,
                expected=entry.input.modality,
                hint="--scout off computes over the whole scan.",
            )
        if unknown := [organ for organ in sought if organ not in scout.labels]:
            raise UsageError(
                f"weights {wanted!r} cannot look for these organs",
                value=", ".join(unknown),
                expected=", ".join(scout.labels.names) or "weights that segment organs",
                hint="--scout off computes over the whole scan.",
            )
        return scout.narrowed(sought)
    if entry.crop_to:
        return _coarsest(manifest, entry)
    if not named or len(organs) == len(entry.labels) or entry.input.tiles is not Placement.SPREAD:
        return None
    usual = manifest.by_id.get(manifest.defaults.get((organs[0], entry.input.modality), ""))
    if usual is None or any(organ not in usual.labels for organ in organs):
        return None
    packaged = all(file.source.kind is SourceKind.PACKAGED for file in usual.files)
    return usual if packaged and _gain(entry, usual) >= LEAST_GAIN else None


def _coarsest(manifest: Manifest, entry: WeightsEntry) -> WeightsEntry | None:
    """Of the weights that are here, those with the coarsest grid that find all organs to which ``entry`` is cropped."""
    able = [
        other.narrowed(entry.crop_to)
        for other in manifest.entries
        if other.id != entry.id
        and not other.crop_to
        and other.input.modality == entry.input.modality
        and all(organ in other.labels for organ in entry.crop_to)
        and all(file.source.kind in (SourceKind.PACKAGED, SourceKind.LOCAL) for file in other.files)
        and _gain(entry, other) >= LEAST_GAIN
    ]
    return max(able, key=lambda other: _gain(entry, other), default=None)


def _gain(fine: WeightsEntry, coarse: WeightsEntry) -> float:
    """How many voxels of the fine grid one of the coarse grid covers; 0 where that is not known."""
    if fine.input.spacing_mm is None or coarse.input.spacing_mm is None or 0 in fine.input.spacing_mm:
        return 0.0
    return math.prod(coarse.input.spacing_mm) / math.prod(fine.input.spacing_mm)
