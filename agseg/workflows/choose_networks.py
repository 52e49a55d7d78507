"""Choice of networks: which weights of the manifest make which of the organs that were asked for."""

from __future__ import annotations

from collections import Counter

from agseg.errors import UsageError
from agseg.weights.entry import WeightsEntry
from agseg.weights.input_spec import VOLUMETRIC
from agseg.weights.manifest import Manifest

MODALITY = "CT"
"""What is segmented where no weights are named. (Ultrasound has its own command.)"""


def choose_networks(
    manifest: Manifest, organs: tuple[str, ...], weights: tuple[str, ...] = ()
) -> tuple[tuple[WeightsEntry, tuple[str, ...]], ...]:
    """The manifest entries of a run, each with the organs that it makes.

    Parameters
    ----------
    manifest
        What there is.
    organs
        What was asked for; empty means all that the weights know.
    weights
        Ids, in the order given; an organ is made by the first of them that knows it. None: each organ by its default.

    Raises
    ------
    UsageError
        If an organ is known to no entry, an entry has nothing to make, or the entries are for scans of different modalities.
    """
    if weights:
        names = tuple(dict.fromkeys(weights))
        _check_modality([manifest.entry(name) for name in names])
        return _named(manifest, organs, names)
    if not organs:
        entry = default_entry(manifest)
        return ((entry, entry.labels.names),)
    defaults = {organ: manifest.default_for(organ, MODALITY) for organ in organs}
    by_id = {entry.id: entry for entry in defaults.values()}
    shared = {name: tuple(organ for organ in organs if defaults[organ].id == name) for name in by_id}
    return tuple((entry.narrowed(shared[name]), shared[name]) for name, entry in by_id.items())


def choose_second(
    manifest: Manifest, name: str, chosen: tuple[tuple[WeightsEntry, tuple[str, ...]], ...]
) -> tuple[WeightsEntry, tuple[str, ...]]:
    """The entry that looks at the organs of a run too, and the organs that it compares.

    Parameters
    ----------
    name
        Its id.
    chosen
        The run's networks with their organs.

    Raises
    ------
    UsageError
        If it has nothing to compare: it knows none of the organs, makes them itself, or sees other scans.
    """
    second = manifest.entry(name)
    _check_modality([*(entry for entry, _ in chosen), second])
    of_others = tuple(organ for entry, makes in chosen if entry.id != name for organ in makes)
    organs = tuple(organ for organ in of_others if organ in second.labels)
    if not organs:
        raise UsageError(
            f"weights {name!r} have nothing to take a second look at",
            value=", ".join(of_others) or "organs that they make themselves",
            expected=f"other weights' {', '.join(second.labels.names) or 'organs'}",
        )
    return second.narrowed(organs), organs


def _check_modality(entries: list[WeightsEntry]) -> None:
    """One run looks for scans of one modality."""
    by_modality: dict[str, list[str]] = {}
    for entry in entries:
        by_modality.setdefault(entry.input.modality, []).append(entry.id)
    if len(by_modality) > 1:
        raise UsageError(
            "these weights are for scans of different modalities",
            value="; ".join(f"{modality}: {', '.join(names)}" for modality, names in by_modality.items()),
            hint="Run agseg segment once for each modality.",
        )
    by_channels = {entry.id: (entry.input.modality, *(c.name for c in entry.input.channels)) for entry in entries}
    if len(set(by_channels.values())) > 1:
        raise UsageError(
            "these weights see different channels",
            value="; ".join(f"{name}: {', '.join(seen)}" for name, seen in by_channels.items()),
            hint="Run agseg segment once for each.",
        )
    strangers = [entry.id for entry in entries if entry.labels.names and entry.input.modality not in VOLUMETRIC]
    if strangers:
        raise UsageError(
            "these weights segment no scans", value=strangers[0], expected=f"weights for {' or '.join(VOLUMETRIC)}"
        )


def default_entry(manifest: Manifest) -> WeightsEntry:
    """The entry that is the default for most organs.

    Raises
    ------
    UsageError
        If there is none.
    """
    counted = Counter({entry.id: len(entry.default_for) for entry in manifest.entries if entry.input.modality == MODALITY})
    best = [name for name, count in counted.most_common(1) if count]
    if not best:
        raise UsageError("the manifest names no default weights", hint="Choose one with --weights ID.")
    return manifest.entry(best[0])


def _named(
    manifest: Manifest, organs: tuple[str, ...], weights: tuple[str, ...]
) -> tuple[tuple[WeightsEntry, tuple[str, ...]], ...]:
    chosen: list[tuple[WeightsEntry, tuple[str, ...]]] = []
    made_by: dict[str, str] = {}
    for name in weights:
        entry = manifest.entry(name)
        for organ in organs:
            if organ not in manifest.organs:
                raise manifest.unknown_organ(organ)
        if not entry.labels.names:
            raise UsageError(
                f"weights {name!r} segment no organ: they classify frames", hint=f"agseg classify-us CLIP --weights {name}"
            )
        known = tuple(organ for organ in organs or entry.labels.names if organ in entry.labels)
        if not known:
            raise UsageError(
                f"weights {name!r} know none of these organs",
                value=", ".join(organs),
                expected=f"one of {', '.join(entry.labels.names)}",
            )
        makes = tuple(organ for organ in known if organ not in made_by)
        if not makes:
            raise UsageError(
                f"weights {name!r} have nothing to do: the weights before them make all of these organs",
                value=", ".join(known),
                hint="Leave one of them out, or run agseg once with each.",
            )
        made_by |= dict.fromkeys(makes, name)
        chosen.append((entry.narrowed(makes), makes))
    return tuple(chosen)
