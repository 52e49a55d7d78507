"""Several registered images of one patient as one study: nnU-Net's ``CASE_0000``, ``CASE_0001``, ... side by side in a folder.

Discovery finds one study per file; for a network that sees several channels they are joined here. A case that lacks a channel
is a rejected study, never one with fewer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from agseg.errors import Code, InputError
from agseg.io.readers import reader_of
from agseg.study import Discovery, Rejected, Study
from agseg.volume import Volume

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def join_channels(found: Discovery, count: int) -> Discovery:
    """A discovery whose studies have ``count`` channels each; itself where that is 1.

    Each joined study is called after its case, without the channel's number. A study that is none of a complete set stays as it
    is, rejected with the files that it would take.
    """
    if count == 1:
        return found
    cases: dict[tuple[Path, str], dict[int, Study]] = defaultdict(dict)
    alone: list[Study] = []
    for study in found.studies:
        named = _NUMBERED.fullmatch(study.id)
        if named is None or len(study.files) != 1:
            alone.append(
                _lacking(study, f"the weights see {count} images of a patient: expected CASE_0000 to CASE_{count - 1:04d}")
            )
        else:
            cases[(study.root, named["case"])][int(named["channel"])] = study
    joined = [study for (_, case), channels in cases.items() for study in _case(case, channels, count)]
    return replace(found, studies=tuple(sorted([*alone, *joined], key=lambda study: study.id)))


def _case(case: str, channels: dict[int, Study], count: int) -> list[Study]:
    """The study of a case, and channels that belong to nothing."""
    surplus = [_lacking(study, f"the weights see {count} channels only") for n, study in channels.items() if n >= count]
    mine = {n: study for n, study in sorted(channels.items()) if n < count}
    if not mine:
        return surplus
    first = next(iter(mine.values()))
    study = replace(
        first,
        id=case,
        files=tuple(file for one in mine.values() for file in one.files),
        reason=f"{count} channels, one file each; the format carries no modality",
        rejected=next((one.rejected for one in mine.values() if one.rejected is not None), None),
        warnings=tuple(warned for one in mine.values() for warned in one.warnings),
        channels=count,
    )
    missing = [f"{Path(case).name}_{n:04d}" for n in range(count) if n not in mine]
    return [_lacking(study, f"a channel is missing: expected {', '.join(missing)} beside it") if missing else study, *surplus]


def _lacking(study: Study, why: str) -> Study:
    return study if study.rejected is not None else replace(study, rejected=Rejected(Code.UNSUPPORTED_INPUT, why))


def read_channels(study: Study) -> Volume:
    """The volume of a study with several files: the first as its modality wants it, the others as they are.

    Raises
    ------
    InputError
        As the format's reader; ``E_DIMENSIONS`` if the images do not lie on one grid.
    """
    read = reader_of(study.kind).read
    first = read(replace(study, files=study.files[:1], channels=1))
    more, warnings = [], list(first.warnings)
    for file in study.files[1:]:
        other = read(replace(study, files=(file,), channels=1, modality="MR", warnings=()))
        if not other.grid.matches(first.grid):
            raise InputError(
                "the channels lie on different grids",
                code=Code.DIMENSIONS,
                path=file,
                value=other.grid.shape,
                expected=first.grid.shape,
                hint="Resample it to the grid of the first channel; agseg registers nothing.",
            )
        more.append(other.voxels.astype(np.float32, copy=False))
        warnings += [warned for warned in other.warnings if warned.code is not Code.MODALITY_ASSUMED]
    return replace(first, warnings=tuple(warnings), more=tuple(more))
