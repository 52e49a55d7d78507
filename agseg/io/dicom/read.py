"""DICOM CT or MR series to a Volume: ordered by position, HU or signal per slice, decoded in parallel into one array.

This is the only place where DICOM's LPS becomes agseg's RAS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.dicom.dataset import open_dataset
from agseg.io.dicom.derived import derived_from
from agseg.io.dicom.enhanced import enhanced_frames
from agseg.io.dicom.fragments import check_fragments
from agseg.io.dicom.header import read_header
from agseg.io.dicom.parallel import decode_frames
from agseg.io.dicom.pixels import (
    Rescale,
    check_frame_size,
    decode_frame,
    is_native,
    native_frame,
    value_table,
)
from agseg.io.dicom.plausible import check_hu, has_foreign_bits
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.dicom.stack import Plane, Stack, stack_planes
from agseg.study import Study
from agseg.volume import Quantity, Volume, Warned

LARGEST_VOLUME_VOXELS = 1_500_000_000
"""A study with more voxels (3 GB as int16) is refused before memory is taken."""

READING_THREADS = min(8, os.cpu_count() or 1)
"""Uncompressed slices read at a time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image plane of a file: its number in the file, its plane, and its rescale (None where it has none)."""

    header: SliceHeader
    index: int
    plane: Plane
    slope: float | None
    intercept: float | None
    rescale_type: str
    moment: tuple[int | None, int | None] = (None, None)
    """Temporal position and acquisition number of a frame of a multi-frame file."""

    def scale(self) -> Rescale:
        """How its stored bits become HU or signal; raises as :meth:`Rescale.of`."""
        return Rescale.of(self.header, slope=self.slope, intercept=self.intercept, rescale_type=self.rescale_type)


def frames_of(header: SliceHeader) -> list[Frame]:
    """The frames of one file: one, or those of an enhanced multi-frame file's functional groups."""
    if header.is_enhanced:
        return [
            Frame(header, index, facts.plane, facts.slope, facts.intercept, facts.rescale_type, facts.moment)
            for index, facts in enumerate(enhanced_frames(header))
        ]
    if header.frames != 1:
        raise InputError(
            "several frames in a file that is not an enhanced one", code=Code.DIMENSIONS, value=header.frames, expected=1
        )
    plane = Plane(header.rows, header.columns, header.position_mm, header.orientation, header.pixel_spacing_mm)
    return [Frame(header, 0, plane, header.slope, header.intercept, header.rescale_type)]


def stack_frames(frames: Sequence[Frame]) -> Stack:
    """The stack that the frames make, after every check that headers allow.

    Raises
    ------
    InputError
        With the reason code of the first rule that is broken.
    """
    for header in {id(frame.header): frame.header for frame in frames}.values():
        check_frame_size(header)
    stack = stack_planes([frame.plane for frame in frames])
    for frame in frames:
        frame.scale()
    voxels = int(np.prod(stack.shape, dtype=np.int64))
    if voxels > LARGEST_VOLUME_VOXELS:
        raise InputError("the volume is too large", code=Code.TOO_LARGE, value=voxels, expected=LARGEST_VOLUME_VOXELS)
    return stack


def read_dicom(study: Study) -> Volume:
    """Read a DICOM CT or MR series.

    Returns
    -------
    Volume
        Voxels (i = column, j = row, k = slice), Fortran-ordered, HU or signal; int16, or float32 where values are not whole
        or larger.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    frames = [frame for path in study.files for frame in frames_of(read_header(path))]
    stack = stack_frames(frames)
    scales = [frame.scale() for frame in frames]
    whole = all(scale.is_whole for scale in scales)
    columns, rows, slices = stack.shape
    # C order (k, j, i) in memory is Fortran order (i, j, k): every slice is one block, as it lies in the file.
    memory: NDArray[Any] = np.empty((slices, rows, columns), dtype=np.int16 if whole else np.float32)

    read = [frames[group[0]] for group in stack.order]
    masked: list[int] = []

    def keep(k: int, stored: NDArray[Any]) -> None:
        scale = scales[stack.order[k][0]]
        if scale.bits_stored < scale.bits_allocated and has_foreign_bits(stored, scale):
            masked.append(k)
        table = value_table(scale, whole=whole)
        # mode "clip" writes straight into the slice; no index can lie outside a table of all bit patterns.
        np.take(table, stored, out=memory[k], mode="clip")

    _read_native(read, keep)
    _read_compressed(read, keep)
    _check_duplicates(stack, frames, scales, memory)
    warnings = list(study.warnings)
    if stack.has_duplicates and not any(warned.code is Code.DUPLICATE_SLICES for warned in warnings):
        spare = sum(len(group) - 1 for group in stack.order)
        warnings.append(Warned(Code.DUPLICATE_SLICES, f"{spare} identical slices at positions already taken were dropped"))
    if stack.tilted:
        warnings.append(
            Warned(
                Code.GANTRY_TILT_CORRECTED, "the gantry was tilted; the volume keeps its sheared grid, nothing was resampled"
            )
        )
    if masked:
        what = f"bits beyond BitsStored were set in {len(masked)} slices, as old overlays were stored, and were masked"
        warnings.append(Warned(Code.UNUSED_BITS, what))
    if memory.size and memory.min() == memory.max():
        raise InputError("every voxel has the same value", code=Code.EMPTY_IMAGE)
    quantity = Quantity.of(study.modality)
    if quantity is Quantity.HU and all(kind.has_tissue_values for frame in read for kind in derived_from(frame.header)):
        check_hu(memory, [scales[group[0]] for group in stack.order])
    grid = Grid(stack.shape, LPS_TO_RAS @ stack.affine_lps)
    return Volume(memory.transpose(2, 1, 0), grid, quantity, study.modality, tuple(warnings))


def read_headers(study: Study) -> tuple[Any, ...]:
    """The pydicom data sets without pixels, in order of position; dropped duplicates are left out.

    For an enhanced series these are its files, in order of their first frame. UIDs that a file lacks stay empty.
    """
    frames = [frame for path in study.files for frame in frames_of(read_header(path))]
    stack = stack_frames(frames)
    paths = dict.fromkeys(frames[group[0]].header.path for group in stack.order)
    return tuple(open_dataset(path, with_pixels=False) for path in paths)


def _read_native(frames: Sequence[Frame], keep: Callable[[int, NDArray[Any]], None]) -> None:
    """Frames that lie in their files as they are, in threads: reading and looking up release Python's lock."""
    native = [(k, frame) for k, frame in enumerate(frames) if is_native(frame.header)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        work = [pool.submit(lambda k, frame: keep(k, native_frame(frame.header, frame.index)), k, frame) for k, frame in native]
        try:
            for done in work:
                done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _read_compressed(frames: Sequence[Frame], keep: Callable[[int, NDArray[Any]], None]) -> None:
    """Frames that a codec must decode, in processes where there are many."""
    jobs = [(k, frame.header, frame.index) for k, frame in enumerate(frames) if not is_native(frame.header)]
    for header in {id(header): header for _, header, _ in jobs}.values():
        check_fragments(header)
    last_opened = lru_cache(maxsize=1)(open_dataset)
    decode_frames(jobs, here=lambda job: decode_frame(last_opened(job[1].path), job[1], job[2]), done=keep)


def _check_duplicates(stack: Stack, frames: Sequence[Frame], scales: Sequence[Rescale], memory: NDArray[Any]) -> None:
    """Refuse positions that hold different slices; identical ones are one slice, sent twice."""
    for k, group in enumerate(stack.order):
        for other in group[1:]:
            frame = frames[other]
            if is_native(frame.header):
                stored = native_frame(frame.header, frame.index)
            else:
                stored = decode_frame(open_dataset(frame.header.path), frame.header, frame.index)
            if not np.array_equal(value_table(scales[other], whole=memory.dtype == np.int16)[stored], memory[k]):
                raise _duplicate_error(stack)


def _duplicate_error(stack: Stack) -> InputError:
    counts = {len(group) for group in stack.order}
    if len(counts) == 1:
        return InputError(
            "several time points or phases at every position", code=Code.FOUR_D, value=counts.pop(), expected="one per position"
        )
    return InputError("different slices at one position", code=Code.DUPLICATE_POSITIONS)
