"""What the model process does with one study: predict, measure, write. No ledger, no printing.

This module is imported by the parent process too, so torch is imported inside functions only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.batch import StudyFolder, StudyTask
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

__all__ = ["OutputType", "SegmenterConfig", "SegmenterOptions", "StudySegmenter", "check_outputs"]


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
class SegmenterConfig:
    """Everything the model process needs; crosses the process boundary, and makes the segmenter there.

    Parameters
    ----------
    entry, paths
        The weights and their verified files.
    organs
        What to report, in the order asked for; those the weights do not know are reported as such.
    options
        How to compute and what to write.
    parameters
        The run's parameters as they stand in the record.
    """

    entry: WeightsEntry
    paths: tuple[Path, ...]
    organs: tuple[str, ...]
    options: SegmenterOptions = field(default_factory=SegmenterOptions)
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> WeightsRef:
        """The weights as they stand in a record."""
        return WeightsRef(self.entry.id, self.entry.sha256 or "", self.entry.architecture, self.entry.licence)

    def __call__(self) -> StudySegmenter:
        """Load the network; called once in the model process."""
        from agseg.inference.allocator import keep_freed_memory

        if self.entry.labels.class_count <= MANY_CLASSES:
            keep_freed_memory()
        return StudySegmenter(self)


class StudySegmenter:
    """A loaded network that turns one study after the other into files and reports."""

    def __init__(self, config: SegmenterConfig) -> None:
        import torch

        from agseg.inference.device import Precision, choose_precision, describe, resolve_device
        from agseg.inference.network import load_network
        from agseg.inference.segment import Settings

        self._config = config
        options = config.options
        device = resolve_device(options.device)
        precision = choose_precision(Precision(options.precision), device)
        self._network = load_network(
            config.entry, config.paths, device=device, precision=precision, prune_depth=options.prune_depth
        )
        self._settings = Settings(overlap=options.overlap, fast=options.fast, mirror=options.mirror)
        self.environment: dict[str, Any] = {
            "device": describe(device),
            "precision": self._network.precision.value,
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
        from agseg.inference.segment import segment_with_entry

        begun = time.perf_counter()
        stage("predict")
        known = [organ for organ in self._config.organs if organ in self._config.entry.labels]
        result = segment_with_entry(volume, self._network, self._config.entry, organs=known, settings=self._settings)
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

    def _measured(self, result: Segmentation, volume: Volume) -> tuple[Measurement, ...]:
        """Measurements in the order of the organs asked for, with the reasons to look twice."""
        by_name = {measurement.name: measurement for measurement in measure(result.mask, volume)}
        measured = []
        for organ in self._config.organs:
            found = by_name.get(organ)
            if found is None:
                measured.append(Measurement(organ, OrganStatus.NOT_IN_WEIGHTS))
                continue
            reasons = review(found, probability=result.probability.get(organ), components=result.components.get(organ, 0))
            measured.append(replace(found, review=reasons))
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
        for gate in gate_maps(volume, self._network, self._config.entry.input):
            write_scalar(folder / f"{gate.name}.nii.gz", gate.alpha, volume.grid)
            write_overlay(folder / f"{gate.name}.png", volume, gate.alpha)


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
