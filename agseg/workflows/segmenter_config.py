"""What a run of ``segment`` makes and how; it crosses to the model process and to the writer process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.batch.provenance import NetworkUse
from agseg.io.outputs import SECOND_LOOK
from agseg.report import WeightsRef
from agseg.weights.entry import WeightsEntry
from agseg.workflows.options import SegmenterOptions


@dataclass(frozen=True)
class NetworkConfig:
    """One network of a run.

    Parameters
    ----------
    entry, paths
        The weights and their verified files.
    organs
        What it makes; each is one of the entry's labels.
    scout
        The coarse weights that take a first look, if any; its organs are those that they look for.
    """

    entry: WeightsEntry
    paths: tuple[Path, ...]
    organs: tuple[str, ...]
    scout: NetworkConfig | None = None

    @property
    def weights(self) -> WeightsRef:
        """The weights as a record names them."""
        return WeightsRef(self.entry.id, self.entry.sha256 or "", self.entry.architecture, self.entry.licence)

    @property
    def use(self) -> NetworkUse:
        """The network as the batch knows it, without its files."""
        usage = usage_digest(self.entry)
        if self.scout is not None:
            looked = f"{self.scout.weights.sha256} {usage_digest(self.scout.entry)}"
            usage = hashlib.sha256(f"{usage} {looked}".encode()).hexdigest()
        return NetworkUse(self.weights, self.organs, usage)


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything that the model process and the writer process need.

    Parameters
    ----------
    networks
        At least one; no organ is made by two of them. Where two claim a voxel, the earlier one keeps it.
    organs
        What to report, in the order asked for; those that no network makes are reported as such.
    options
        How to compute and what to write.
    parameters
        The run's parameters for the record.
    threads
        Threads of the networks on a CPU; None leaves it to torch.
    second
        A network that looks at the organs too, for the review list alone: it changes no mask.
    """

    networks: tuple[NetworkConfig, ...]
    organs: tuple[str, ...]
    options: SegmenterOptions = field(default_factory=SegmenterOptions)
    parameters: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    second: NetworkConfig | None = None

    @property
    def weights(self) -> tuple[WeightsRef, ...]:
        """The weights of all networks that make masks."""
        return tuple(network.weights for network in self.networks)

    @property
    def second_look(self) -> str | None:
        """What records call the second network's look: another one, or one that is used otherwise, has another name."""
        if self.second is None:
            return None
        used = f"{self.second.weights.sha256} {self.second.use.usage_sha256}"
        return f"{SECOND_LOOK}:{self.second.entry.id} {hashlib.sha256(used.encode()).hexdigest()[:12]}"


def usage_digest(entry: WeightsEntry) -> str:
    """SHA-256 (hex) of what an entry says about making a result with its files: a site may correct it under the same files.

    Scores, licence and the like are left out: they change no voxel, and no frame's label.
    """
    usage = {
        "architecture": entry.architecture,
        "config": entry.config,
        "format": entry.format,
        "input": entry.input.identity(),
        "labels": [[label.index, label.name] for label in entry.labels],
        **({"classes": list(entry.classes)} if entry.classes else {}),
        "cleanup": entry.cleanup,
        **({"largest_of": entry.largest_of} if entry.largest_of else {}),
        **({"crop_to": list(entry.crop_to)} if entry.crop_to else {}),
        **({"parts": [usage_digest(part) for part in entry.part_entries()]} if entry.parts else {}),
    }
    return hashlib.sha256(json.dumps(usage, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
