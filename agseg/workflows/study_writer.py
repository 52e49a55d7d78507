"""What the writer process does with one study: measure, write, publish. No network, no ledger, no printing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from agseg.batch import StudyFolder, StudyTask
from agseg.batch.draft import Draft
from agseg.errors import Code
from agseg.io.label_files import read_masks
from agseg.io.mosaic import MOSAIC_PNG, write_mosaic
from agseg.io.outputs import ATTENTION, PREVIEW, SECOND_LOOK, STATISTICS, OutputFiles
from agseg.io.preview import PREVIEW_PNG, write_preview
from agseg.io.second_look import SECOND_LOOK_JSON, write_second_look
from agseg.io.statistics import STATISTICS as STATISTICS_JSON
from agseg.io.statistics import write_statistics
from agseg.io.writers import Result, write_all
from agseg.label_merge import merge_masks, overlap
from agseg.labels import Label, LabelSet
from agseg.measure.agreement import Agreement
from agseg.measure.evidence import collect
from agseg.measure.review import SecondLook, reviews
from agseg.measure.volumes import measure, survey
from agseg.report import Measurement, OrganStatus, StudyReport
from agseg.volume import LabelMask, Volume, Warned
from agseg.workflows.segmenter_config import SegmenterConfig


class StudyWriter:
    """Turns one draft after the other into files and reports.

    Parameters
    ----------
    config
        What the run makes; what writing it needs is imported here, while the first study is in the model.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        self._config = config
        if config.options.outputs.preview:
            import PIL.Image
            import PIL.ImageDraw
            import PIL.ImageFont
            import skimage.measure

            _ = (PIL.Image, PIL.ImageDraw.Draw, PIL.ImageFont.load_default, skimage.measure.find_contours)

    def write(
        self,
        task: StudyTask,
        volume: Volume,
        draft: Draft,
        stage: Callable[[str], None],
        *,
        more: Callable[[Path], None] | None = None,
    ) -> StudyReport:
        """Measure one study and write its files.

        Parameters
        ----------
        task, volume, draft
            What is to be done, what was read, and what the model found.
        stage
            Told what is being done.
        more
            Writes more files into the study's folder, for a caller that has the network.
        """
        begun = time.perf_counter()
        stage("measure")
        facts, kept = draft.facts, task.plan.kept
        mask, new, warnings = self._masks(task, volume, draft)
        measured = self._ordered((*self._measured(mask, new, volume, draft), *kept.organs))
        writing = time.perf_counter()
        stage("write")
        with StudyFolder(task) as folder:
            options = self._config.options
            used = {organ.weights for organ in measured}
            weights = tuple(one for one in (*self._config.weights, *kept.weights) if one.id in used)
            result = Result(
                task.study,
                volume,
                mask,
                measured,
                tuple({one.id: one for one in weights}.values()) or self._config.weights,
                options.shaping.to_dict(),
                options.outputs,
            )
            outputs, told = self._write(folder.path, result, task.plan.write)
            if self._config.second_look in task.plan.write and SECOND_LOOK in facts:
                write_second_look(folder.path, facts[SECOND_LOOK])
                outputs[self._config.second_look] = OutputFiles((SECOND_LOOK_JSON,), mask.label_set.names)
            if more is not None:
                more(folder.path)
                outputs[ATTENTION] = OutputFiles(_below(folder.path, ATTENTION), mask.label_set.names)
            ended = time.perf_counter()
            seconds = {
                "read": task.read_seconds,
                **facts.get("seconds", {}),
                "measure": writing - begun,
                "write": ended - writing,
            }
            seconds["total"] = task.read_seconds + facts.get("elapsed_s", 0.0) + ended - begun
            return folder.publish(
                volume,
                organs=measured,
                warnings=(*warnings, *told),
                seconds={name: round(value, 3) for name, value in seconds.items()},
                outputs=outputs,
                values={label.name: label.index for label in mask.label_set},
            )

    def _masks(self, task: StudyTask, volume: Volume, draft: Draft) -> tuple[LabelMask, frozenset[str], tuple[Warned, ...]]:
        """All organs in one mask, which of them are new, and the warnings of the draft and of putting it together."""
        kept, masks = task.plan.kept, []
        if kept.organs:
            names = tuple(organ.name for organ in kept.organs)
            masks.append(read_masks(task.folder, kept.readable, kept.values, organs=names, grid=volume.grid))
        warnings: list[Warned] = []
        new: frozenset[str] = frozenset()
        if draft.facts:
            labels = LabelSet(tuple(Label(index, name) for index, name in draft.facts["labels"]))
            masks.append(LabelMask(draft.labels, volume.grid, labels))
            new = frozenset(labels.names)
            warnings += (Warned(Code(warned["code"]), warned["message"]) for warned in draft.facts["warnings"])
        merged, clashes = merge_masks(masks)
        return merged, new, (*warnings, *([overlap(clashes)] if clashes else []))

    def _measured(self, mask: LabelMask, new: frozenset[str], volume: Volume, draft: Draft) -> tuple[Measurement, ...]:
        """Measurements of the new organs, with the reasons to look twice, and a row for each that no network knows."""
        made_by = {organ: network.entry.id for network in self._config.networks for organ in network.organs}
        unknown = tuple(Measurement(o, OrganStatus.NOT_IN_WEIGHTS) for o in self._config.organs if o not in made_by)
        if not new:
            return unknown
        probability, components = draft.facts["probability"], draft.facts["components"]
        walked = survey(mask, volume)
        measured = measure(mask, volume, walked)
        evidence = collect(mask, volume, walked)
        calibrated = {
            organ for network in self._config.networks for organ in network.organs if organ in network.entry.calibration
        }
        second = _second_look(draft.facts)
        reasons = reviews(
            measured, evidence, probability=probability, components=components, calibrated=calibrated, second=second
        )
        mine = (found for found in measured if found.name in new)
        return (*(replace(found, review=reasons[found.name], weights=made_by[found.name]) for found in mine), *unknown)

    def _ordered(self, measured: Sequence[Measurement]) -> tuple[Measurement, ...]:
        """In the order of the organs asked for, then those that were there."""
        by_name = {found.name: found for found in reversed(measured)}
        order = dict.fromkeys((*(organ for organ in self._config.organs if organ in by_name), *(m.name for m in measured)))
        return tuple(by_name[name] for name in order)

    def _write(self, folder: Path, result: Result, write: Sequence[str]) -> tuple[dict[str, OutputFiles], tuple[Warned, ...]]:
        """The outputs of the study; returns their files, and what could not be written and why."""
        organs = result.mask.label_set.names
        # One thread draws while this one packs masks: after the last study of a run there is a processor for each.
        with ThreadPoolExecutor(1) as pool:
            drawn = pool.submit(_draw, folder, result) if PREVIEW in write else None
            written = write_all(folder, result, write=write)
        outputs = {name: OutputFiles(one.files, organs) for name, one in written.items()}
        if STATISTICS in write:
            write_statistics(folder, result.measurements, result.mask.grid)
            outputs[STATISTICS] = OutputFiles((STATISTICS_JSON,), organs)
        if drawn is not None:
            drawn.result()
            outputs[PREVIEW] = OutputFiles((PREVIEW_PNG, MOSAIC_PNG), organs)
        return outputs, tuple(warned for one in written.values() for warned in one.warnings)


def _draw(folder: Path, result: Result) -> None:
    write_preview(folder / PREVIEW_PNG, result.volume, result.mask, result.measurements)
    write_mosaic(folder / MOSAIC_PNG, result.volume, result.mask, result.measurements)


def _second_look(facts: dict[str, Any]) -> SecondLook | None:
    told = facts.get(SECOND_LOOK)
    if told is None:
        return None
    return SecondLook(told["weights"], {organ: Agreement(**seen) for organ, seen in told["organs"].items()})


def _below(folder: Path, name: str) -> tuple[str, ...]:
    return tuple(sorted(p.relative_to(folder).as_posix() for p in (folder / name).rglob("*") if p.is_file()))
