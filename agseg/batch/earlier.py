"""Comparison of what was asked for with a study's earlier result: what still holds, and what is left to do.

The folder of a study holds the organs of all networks that were asked for, now and before: one that is asked for today joins
those of yesterday, as long as they were made from the same files. A network runs only for masks that are not there, and an
output that is missing is written from the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agseg.batch.provenance import NetworkUse, Provenance
from agseg.io.finished import is_intact, load_record
from agseg.io.label_files import organ_file
from agseg.io.outputs import MASK_FORMS, NIFTI, OutputFiles, needs_network
from agseg.report import STUDY_JSON, Measurement, StudyStatus, WeightsRef, weights_from_dict


@dataclass(frozen=True)
class Kept:
    """What stays of an earlier result.

    Parameters
    ----------
    organs
        Their measurements, as they were.
    networks
        The networks of the record that made them.
    weights
        Their weights.
    outputs
        Files that stay, by output.
    readable
        Outputs from which the masks can be read, whether they stay or not.
    values
        Label values of the organs.
    """

    organs: tuple[Measurement, ...] = ()
    networks: tuple[dict[str, Any], ...] = ()
    weights: tuple[WeightsRef, ...] = ()
    outputs: dict[str, OutputFiles] = field(default_factory=dict)
    readable: dict[str, OutputFiles] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Names of the organs."""
        return frozenset(organ.name for organ in self.organs)

    @property
    def files(self) -> frozenset[str]:
        """All files that stay."""
        return frozenset(name for files in self.outputs.values() for name in files.files)


@dataclass(frozen=True)
class Plan:
    """What a study needs.

    Parameters
    ----------
    todo
        Ids of the weights whose network must run.
    write
        Outputs that must be written.
    kept
        What stays.
    """

    todo: tuple[str, ...]
    write: tuple[str, ...]
    kept: Kept = field(default_factory=Kept)

    @property
    def is_empty(self) -> bool:
        """Whether the earlier result is all that was asked for."""
        return not self.todo and not self.write


@dataclass(frozen=True)
class _Earlier:
    """An earlier result that was made from the same files, as far as its files are still what the run wrote."""

    organs: dict[str, Measurement]
    networks: dict[str, dict[str, Any]]
    weights: tuple[WeightsRef, ...]
    outputs: dict[str, OutputFiles]
    values: dict[str, int]

    @property
    def readable(self) -> frozenset[str]:
        """Organs whose masks can be read back; one without a voxel needs no file."""
        held = {organ for form in MASK_FORMS if form in self.outputs for organ in self.outputs[form].organs}
        return frozenset(name for name, organ in self.organs.items() if name in held or organ.voxels == 0)


def plan(folder: Path, provenance: Provenance, wanted: Sequence[str], *, overwrite: bool = False) -> Plan:
    """Compare what was asked for with what the study's folder holds.

    Parameters
    ----------
    folder
        The study's folder, which need not be there.
    provenance
        What a result asked for now would be made from.
    wanted
        Names of outputs.
    overwrite
        Run every network again; organs of networks that were not asked for stay all the same.
    """
    uses = {use.weights.id: (use, key) for use, key in zip(provenance.networks, provenance.keys, strict=True)}
    earlier = _earlier(folder, provenance.fingerprint)
    if earlier is None:
        return Plan(tuple(uses), tuple(wanted))
    if not any(use.organs for use, _ in uses.values()):
        return _whole(earlier, uses, wanted, overwrite=overwrite)
    todo = {name for name, (use, key) in uses.items() if overwrite or not _holds(earlier, name, use.organs, key)}
    made = {organ for name in todo for organ in uses[name][0].organs}
    stay = set(earlier.organs) - made
    if not todo and not _missing(earlier, stay, set(), wanted):
        return Plan((), ())
    lost = stay - earlier.readable
    if lost or any(map(needs_network, _missing(earlier, stay, made, wanted))):
        again = uses if not lost else {name for name, (use, _) in uses.items() if lost & set(use.organs)}
        todo |= set(again)
        made = {organ for name in todo for organ in uses[name][0].organs}
        stay -= made | lost
    write = _missing(earlier, stay, made, wanted)
    return Plan(tuple(name for name in uses if name in todo), write, _kept(earlier, stay, write))


def _whole(earlier: _Earlier, uses: Mapping[str, tuple[NetworkUse, str]], wanted: Sequence[str], *, overwrite: bool) -> Plan:
    """A result without organs, a clip's, is one piece: it is there, or it is made again."""
    is_there = set(wanted) <= set(earlier.outputs) and all(_holds(earlier, name, (), key) for name, (_, key) in uses.items())
    return Plan((), ()) if is_there and not overwrite else Plan(tuple(uses), tuple(wanted))


def _holds(earlier: _Earlier, name: str, organs: Sequence[str], key: str) -> bool:
    network = earlier.networks.get(name)
    mine = {organ.name for organ in earlier.organs.values() if organ.weights == name}
    return network is not None and network.get("key") == key and set(organs) <= mine


def _missing(earlier: _Earlier, stay: set[str], made: set[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The outputs that are not there, or do not show exactly the organs that stay, or show one that is made again."""

    def holds(name: str) -> bool:
        shown = set(earlier.outputs[name].organs) if name in earlier.outputs else None
        return shown == stay | made and not shown & made

    return tuple(name for name in wanted if not holds(name))


def _kept(earlier: _Earlier, stay: set[str], write: Sequence[str]) -> Kept:
    organs = tuple(organ for name, organ in earlier.organs.items() if name in stay)
    made_by = {organ.weights for organ in organs}
    outputs = {
        name: files
        for name, files in earlier.outputs.items()
        if set(files.organs) <= stay and name not in write and files.files
    }
    if NIFTI in earlier.outputs:
        mine = tuple(organ for organ in earlier.outputs[NIFTI].organs if organ in stay)
        outputs[NIFTI] = OutputFiles(tuple(organ_file(organ) for organ in mine), mine)
    networks = tuple(
        {**network, "organs": [organ.name for organ in organs if organ.weights == name]}
        for name, network in earlier.networks.items()
        if name in made_by
    )
    weights = tuple(one for one in earlier.weights if one.id in made_by)
    values = {name: value for name, value in earlier.values.items() if name in stay}
    readable = {name: earlier.outputs[name] for name in MASK_FORMS if name in earlier.outputs}
    return Kept(organs, networks, weights, outputs, readable, values)


def _earlier(folder: Path, fingerprint: str | None) -> _Earlier | None:
    """The folder's result if it was made from these files; None also for records of before, which do not tell outputs apart."""
    record = load_record(folder)
    if record is None or folder.is_symlink() or fingerprint is None or record.get("fingerprint") != fingerprint:
        return None
    if record["status"] != StudyStatus.DONE or not isinstance(record.get("outputs"), dict):
        return None
    try:
        organs = {told["name"]: Measurement.from_dict(told) for told in record["organs"]}
        networks = {str(network["id"]): dict(network) for network in record["networks"]}
        outputs = {name: OutputFiles.from_dict(told) for name, told in record["outputs"].items()}
        values = {str(name): int(value) for name, value in record.get("label_values", {}).items()}
        weights = weights_from_dict(record)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    intact = {name for name in record["files"] if is_intact(folder, record, name)}
    known = {name for files in outputs.values() for name in files.files}
    if set(record["files"]) - known - {STUDY_JSON} - intact:
        return None
    return _Earlier(
        {name: organ for name, organ in organs.items() if organ.weights in networks},
        networks,
        weights,
        _intact_only(outputs, intact),
        values,
    )


def _intact_only(outputs: Mapping[str, OutputFiles], intact: set[str]) -> dict[str, OutputFiles]:
    """The outputs all of whose files are there; of a file per organ, those organs whose file is."""
    found = {name: files for name, files in outputs.items() if set(files.files) <= intact}
    if NIFTI in outputs and NIFTI not in found:
        organs = tuple(organ for organ in outputs[NIFTI].organs if organ_file(organ) in intact)
        found[NIFTI] = replace(outputs[NIFTI], files=tuple(organ_file(organ) for organ in organs), organs=organs)
    return found
