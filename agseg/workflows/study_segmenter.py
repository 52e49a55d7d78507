"""What the model process does with one study: predict, and leave the labels to the writer. No ledger, no printing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agseg.batch import StudyTask
from agseg.batch.draft import Draft
from agseg.io.outputs import ATTENTION, SECOND_LOOK
from agseg.report import StudyReport
from agseg.volume import Volume
from agseg.workflows.segmenter_config import NetworkConfig, SegmenterConfig

if TYPE_CHECKING:
    from agseg.inference.network import Parts, ReadyNetwork
    from agseg.inference.segment import Segmentation
    from agseg.measure.review import SecondLook


def draft_of(result: Segmentation, *, elapsed_s: float, second: SecondLook | None = None) -> Draft:
    """A segmentation as it crosses to :meth:`agseg.workflows.study_writer.StudyWriter.write`.

    Parameters
    ----------
    elapsed_s
        Seconds that the model process took, all stages and what is between them.
    second
        What another network made of the organs, where one took a look.
    """
    facts: dict[str, Any] = {
        "labels": [[label.index, label.name] for label in result.mask.label_set],
        "probability": result.probability,
        "components": result.components,
        "warnings": [warned.to_dict() for warned in result.warnings],
        "seconds": result.seconds,
        "elapsed_s": elapsed_s,
        **({} if second is None else {SECOND_LOOK: asdict(second)}),
    }
    return Draft(result.mask.labels, facts)


class StudySegmenter:
    """Loaded networks that turn one study after the other into drafts."""

    def __init__(self, config: SegmenterConfig) -> None:
        import torch

        from agseg.inference.device import choose_precision, describe, resolve_device, tune
        from agseg.inference.network import load_entry
        from agseg.inference.segment import Settings
        from agseg.models.precision import Precision

        self._config = config
        options = config.options
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        device = resolve_device(options.device)
        tune(device)
        shaping = options.shaping
        precision = choose_precision(Precision(shaping.precision), device)
        self._networks = [
            load_entry(network.entry, network.paths, device=device, precision=precision, prune_depth=shaping.prune_depth)
            for network in config.networks
        ]
        # Two networks may share the weights that look first.
        scouts = {network.scout.entry.id: network.scout for network in config.networks if network.scout is not None}
        self._scouts = {
            name: load_entry(scout.entry, scout.paths, device=device, precision=precision) for name, scout in scouts.items()
        }
        second = config.second
        self._second = None if second is None else load_entry(second.entry, second.paths, device=device, precision=precision)
        self._settings = Settings(overlap=shaping.overlap, fast=shaping.fast, mirror=shaping.mirror)
        self.environment: dict[str, Any] = {
            "device": describe(device),
            "precision": ", ".join(dict.fromkeys(network.precision.value for network in self._networks)),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport | Draft:
        """Segment one study; its files are the writer's, unless they show what only the network knows.

        Parameters
        ----------
        task, volume
            What is to be done and what was read.
        stage
            Told what is being done.
        """
        begun = time.perf_counter()
        if not task.plan.todo:
            # All masks are there: what is missing is written from them.
            return Draft(np.zeros((1, 1, 1), dtype=np.uint8), {})
        stage("predict")
        result = self._segmented(volume, task.plan.todo)
        second = None
        if self._config.second_look in task.plan.write:
            stage("second look")
            looking = time.perf_counter()
            second = self._looked(volume, result)
            result = replace(result, seconds={**result.seconds, "second look": time.perf_counter() - looking})
        draft = draft_of(result, elapsed_s=time.perf_counter() - begun, second=second)
        if ATTENTION not in task.plan.write:
            return draft
        from agseg.workflows.study_writer import StudyWriter

        writer = StudyWriter(self._config)
        return writer.write(task, volume, draft, stage, more=lambda folder: self._write_attention(folder, volume, draft))

    def _segmented(self, volume: Volume, todo: tuple[str, ...]) -> Segmentation:
        """The organs of these networks in one mask."""
        from agseg.inference.combine import combine

        return combine(
            [
                self._of(network, loaded, volume)
                for network, loaded in zip(self._config.networks, self._networks, strict=True)
                if network.entry.id in todo
            ]
        )

    def _of(self, network: NetworkConfig, loaded: ReadyNetwork | Parts, volume: Volume) -> Segmentation:
        """One network's organs, after a first look where there is one."""
        from agseg.inference.by_entry import segment_with_entry
        from agseg.inference.scout import look

        if network.scout is None:
            return segment_with_entry(volume, loaded, network.entry, organs=network.organs, settings=self._settings)
        begun = time.perf_counter()
        scout = network.scout.entry
        seen = look(volume, self._scouts[scout.id], scout, organs=network.scout.organs)
        looking = time.perf_counter() - begun
        made = segment_with_entry(volume, loaded, network.entry, organs=network.organs, settings=self._settings, box=seen.box)
        seconds = made.seconds | {"predict": made.seconds.get("predict", 0.0) + looking}
        return replace(made, warnings=(seen.said, *made.warnings), seconds=seconds)

    def _looked(self, volume: Volume, result: Segmentation) -> SecondLook:
        """What the second network makes of the organs that were found; its own mask is dropped."""
        from agseg.inference.by_entry import segment_with_entry
        from agseg.measure.agreement import agreement
        from agseg.measure.review import SecondLook

        second = self._config.second
        assert second is not None
        assert self._second is not None
        organs = tuple(organ for organ in second.organs if organ in result.mask.label_set)
        seen = segment_with_entry(volume, self._second, second.entry, organs=organs)
        return SecondLook(second.entry.id, agreement(result.mask, seen.mask))

    def _write_attention(self, folder: Path, volume: Volume, draft: Draft) -> None:
        from agseg.inference.attention import gate_maps, skip_maps
        from agseg.inference.network import ReadyNetwork
        from agseg.io.drawing import save
        from agseg.io.gating import Planes, draw_gating, middle_of, planes_of
        from agseg.io.nifti_write import write_scalar
        from agseg.io.preview import write_overlay

        folder = folder / "attention"
        folder.mkdir()
        for network, loaded in zip(self._config.networks, self._networks, strict=True):
            assert isinstance(loaded, ReadyNetwork)  # no network of several parts has gates
            inside = folder if len(self._networks) == 1 else folder / network.entry.id
            inside.mkdir(exist_ok=True)
            at = middle_of(draft.labels)
            planes: dict[str, dict[str, Planes]] = {}
            for gate in gate_maps(volume, loaded, network.entry.input):
                write_scalar(inside / f"{gate.name}.nii.gz", gate.alpha, volume.grid)
                write_overlay(inside / f"{gate.name}.png", volume, gate.alpha)
                planes.setdefault(gate.name.split("-")[0], {})[gate.name] = planes_of(gate.alpha, volume.grid, at)
            if loaded.has_skips:
                for name, before in skip_maps(volume, loaded, network.entry.input):
                    sheet = draw_gating(
                        planes_of(volume.voxels, volume.grid, at),
                        planes_of(before, volume.grid, at),
                        planes[name],
                        grid=volume.grid,
                    )
                    save(sheet, inside / f"{name}-features.png")
