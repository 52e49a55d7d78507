"""What the model process does with one study: predict, measure, write. No ledger, no printing.

This module is imported by the parent process too, so torch is imported inside functions only.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.batch import StudyFolder, StudyTask
from agseg.batch.provenance import NetworkUse
from agseg.batch.review import review
from agseg.errors import UsageError
from agseg.io.nifti_write import write_mask, write_scalar
from agseg.io.preview import write_overlay, write_preview
from agseg.measure.volumes import measure
from agseg.report import Measurement, OrganStatus, StudyReport, WeightsRef
from agseg.volume import LabelMask, Volume, Warned
from agseg.weights.entry import WeightsEntry

if TYPE_CHECKING:
    from agseg.inference.segment import Segmentation
    from agseg.io.dicom_out.write import Written

__all__ = [
    "NetworkConfig",
    "OutputType",
    "SegmenterConfig",
    "SegmenterOptions",
    "StudySegmenter",
    "check_outputs",
    "usage_digest",
]


MANY_CLASSES = 32
"""Above this a tile's scores are hundreds of megabytes: freed memory is then returned to the system, slower but smaller."""


class OutputType(StrEnum):
    """What is written per study, beside the records."""

    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"
    DICOM_SR = "dicom-sr"
    RTSTRUCT = "rtstruct"


def check_outputs(outputs: tuple[OutputType, ...]) -> None:
    """Refuse what this installation cannot write, before a run rather than after each study's inference.

    Raises
    ------
    UsageError
        Naming the extra that is missing.
    """
    objects = [kind.value for kind in outputs if kind is not OutputType.NIFTI]
    if objects and find_spec("highdicom") is None:
        raise UsageError("DICOM objects need highdicom", value=", ".join(objects), hint="pip install 'agseg[dicom]'")


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """How masks are made and what is written of them, whatever the study.

    Parameters
    ----------
    device, precision, overlap, fast, mirror, prune_depth
        How to compute.
    outputs, multilabel, preview, attention
        What to write.
    """

    device: str = "auto"
    precision: str = "auto"
    overlap: float | None = None
    fast: bool = False
    mirror: bool = False
    prune_depth: int | None = None
    outputs: tuple[OutputType, ...] = (OutputType.NIFTI,)
    multilabel: bool = False
    preview: bool = True
    attention: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As it stands in records."""
        return asdict(self) | {"outputs": [kind.value for kind in self.outputs]}


@dataclass(frozen=True)
class NetworkConfig:
    """One network of a run.

    Parameters
    ----------
    entry, paths
        The weights and their verified files.
    organs
        What it makes; each is one of the entry's labels.
    """

    entry: WeightsEntry
    paths: tuple[Path, ...]
    organs: tuple[str, ...]

    @property
    def weights(self) -> WeightsRef:
        """The weights as a record names them."""
        return WeightsRef(self.entry.id, self.entry.sha256 or "", self.entry.architecture, self.entry.licence)

    @property
    def use(self) -> NetworkUse:
        """The network as the batch knows it, without its files."""
        return NetworkUse(self.weights, self.organs, usage_digest(self.entry))


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything the model process needs; crosses the process boundary, and makes the segmenter there.

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
    """

    networks: tuple[NetworkConfig, ...]
    organs: tuple[str, ...]
    options: SegmenterOptions = field(default_factory=SegmenterOptions)
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[WeightsRef, ...]:
        """The weights of all networks."""
        return tuple(network.weights for network in self.networks)

    def __call__(self) -> StudySegmenter:
        """Load the networks; called once in the model process."""
        from agseg.inference.allocator import keep_freed_memory

        if all(network.entry.labels.class_count <= MANY_CLASSES for network in self.networks):
            keep_freed_memory()
        return StudySegmenter(self)


def usage_digest(entry: WeightsEntry) -> str:
    """SHA-256 (hex) of what an entry says about making a mask with its files: a site may correct it under the same files.

    Scores, licence and the like are left out: they change no voxel.
    """
    usage = {
        "architecture": entry.architecture,
        "config": entry.config,
        "format": entry.format,
        "input": entry.input.identity(),
        "labels": [[label.index, label.name] for label in entry.labels],
        "cleanup": entry.cleanup,
    }
    return hashlib.sha256(json.dumps(usage, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class StudySegmenter:
    """Loaded networks that turn one study after the other into files and reports."""

    def __init__(self, config: SegmenterConfig) -> None:
        import torch

        from agseg.inference.device import Precision, choose_precision, describe, resolve_device
        from agseg.inference.network import load_network
        from agseg.inference.segment import Settings

        self._config = config
        options = config.options
        device = resolve_device(options.device)
        precision = choose_precision(Precision(options.precision), device)
        self._networks = [
            load_network(network.entry, network.paths, device=device, precision=precision, prune_depth=options.prune_depth)
            for network in config.networks
        ]
        self._settings = Settings(overlap=options.overlap, fast=options.fast, mirror=options.mirror)
        self.environment: dict[str, Any] = {
            "device": describe(device),
            "precision": ", ".join(dict.fromkeys(network.precision.value for network in self._networks)),
            "torch": torch.__version__,
        }

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport:
        """Segment one study and write its files.

        Parameters
        ----------
        task, volume
            What is to be done and what was read.
        stage
            Told what is being done.
        """
        begun = time.perf_counter()
        stage("predict")
        result = self._segmented(volume)
        measuring = time.perf_counter()
        stage("measure")
        measured = self._measured(result, volume)
        writing = time.perf_counter()
        stage("write")
        with StudyFolder(task) as folder:
            warnings = (*result.warnings, *self._write(folder.path, task, volume, result, measured))
            seconds = {"read": task.read_seconds, **result.seconds, "measure": writing - measuring}
            seconds["write"] = time.perf_counter() - writing
            seconds["total"] = task.read_seconds + time.perf_counter() - begun
            return folder.publish(
                volume,
                organs=measured,
                warnings=warnings,
                seconds={name: round(value, 3) for name, value in seconds.items()},
            )

    def _segmented(self, volume: Volume) -> Segmentation:
        """All networks' organs in one mask."""
        from agseg.inference.combine import combine
        from agseg.inference.segment import segment_with_entry

        return combine(
            [
                segment_with_entry(volume, loaded, network.entry, organs=network.organs, settings=self._settings)
                for network, loaded in zip(self._config.networks, self._networks, strict=True)
            ]
        )

    def _measured(self, result: Segmentation, volume: Volume) -> tuple[Measurement, ...]:
        """Measurements in the order of the organs asked for, with the reasons to look twice."""
        by_name = {measurement.name: measurement for measurement in measure(result.mask, volume)}
        made_by = {organ: network.entry.id for network in self._config.networks for organ in network.organs}
        measured = []
        for organ in self._config.organs:
            found = by_name.get(organ)
            if found is None:
                measured.append(Measurement(organ, OrganStatus.NOT_IN_WEIGHTS))
                continue
            reasons = review(found, probability=result.probability.get(organ), components=result.components.get(organ, 0))
            measured.append(replace(found, review=reasons, weights=made_by[organ]))
        return tuple(measured)

    def _write(
        self, folder: Path, task: StudyTask, volume: Volume, result: Segmentation, measured: tuple[Measurement, ...]
    ) -> tuple[Warned, ...]:
        """All files of the study but its record; returns what could not be written and why."""
        mask, options = result.mask, self._config.options
        warnings: list[Warned] = []
        objects = tuple(kind for kind in options.outputs if kind is not OutputType.NIFTI)
        as_nifti = OutputType.NIFTI in options.outputs
        if objects:
            written = self._write_objects(folder, task, mask, measured, objects)
            warnings += written.warnings
            # A mask that no DICOM object can hold must not be lost.
            as_nifti = as_nifti or not written.is_complete
        if as_nifti:
            _write_masks(folder, mask, multilabel=options.multilabel)
        statistics = json.dumps(_statistics(measured, mask), indent=2)
        (folder / "statistics.json").write_text(statistics + "\n", encoding="utf-8")
        if options.preview:
            write_preview(folder / "preview.png", volume, mask, measured)
        if options.attention:
            self._write_attention(folder / "attention", volume)
        return tuple(warnings)

    def _write_objects(
        self,
        folder: Path,
        task: StudyTask,
        mask: LabelMask,
        measured: tuple[Measurement, ...],
        kinds: tuple[OutputType, ...],
    ) -> Written:
        from agseg.io.dicom_out.write import write_objects

        return write_objects(
            folder,
            kinds=tuple(kind.value for kind in kinds),
            study=task.study,
            mask=mask,
            measurements=measured,
            weights=self._config.weights,
            parameters=self._config.parameters,
        )

    def _write_attention(self, folder: Path, volume: Volume) -> None:
        from agseg.inference.attention import gate_maps

        folder.mkdir()
        for network, loaded in zip(self._config.networks, self._networks, strict=True):
            inside = folder if len(self._networks) == 1 else folder / network.entry.id
            inside.mkdir(exist_ok=True)
            for gate in gate_maps(volume, loaded, network.entry.input):
                write_scalar(inside / f"{gate.name}.nii.gz", gate.alpha, volume.grid)
                write_overlay(inside / f"{gate.name}.png", volume, gate.alpha)


def _write_masks(folder: Path, mask: LabelMask, *, multilabel: bool) -> None:
    if multilabel:
        write_mask(folder / "labels.nii.gz", mask.labels, mask.grid)
        return
    for label in mask.label_set:
        write_mask(folder / f"{label.name}.nii.gz", mask.labels, mask.grid, value=label.index)


def _statistics(measured: tuple[Measurement, ...], mask: LabelMask) -> dict[str, dict[str, float | None]]:
    """TotalSegmentator's ``statistics.json``: volume in mm³ and mean HU; organs that are not present are left out."""
    return {
        found.name: {"volume": round(found.voxels * mask.grid.voxel_volume_mm3, 3), "intensity": found.mean_hu}
        for found in measured
        if found.voxels
    }
