"""Networks that see a box around the body at a fixed size (OBELISK): long scans in sections, blended where they overlap.

The box is the median over a section's slices of each slice's body extents: the widest slice would make it too loose at the
level of the liver, and the result depends on it. Outside its box a section says background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agseg.errors import Code, InferenceError
from agseg.inference.axis import Interpolation
from agseg.inference.body import Box, body_extents, median_box
from agseg.inference.certainty import Calibrations, calibrated
from agseg.inference.model_grid import ModelGrid
from agseg.inference.normalise import normalise
from agseg.inference.predict import probabilities
from agseg.inference.predictor import Predictor
from agseg.inference.prepare import sample
from agseg.inference.restore import Restored
from agseg.inference.score_checks import check_probabilities
from agseg.labels import LabelSet
from agseg.volume import Volume
from agseg.weights.input_spec import InputSpec

SHARED_PART = 1 / 3
"""Fraction of a section's height that it shares with the next one."""

SLAB = 8
"""Slices restored at a time."""


@dataclass(frozen=True)
class Section:
    """Slices ``first`` up to ``last`` across the long axis, and the box in which the network sees them."""

    first: int
    last: int
    box: Box


def plan_sections(volume: Volume, axis: int, height_mm: float) -> tuple[Section, ...]:
    """Sections of about ``height_mm`` that cover all slices with a body in them.

    A scan up to 1.25 times that height is one section: the weights were trained on scans of differing height.
    """
    count, spacing = volume.grid.shape[axis], volume.grid.spacing_mm[axis]
    extents = body_extents(volume, axis)
    total_mm = count * spacing
    number = 1 if total_mm <= 1.25 * height_mm else int(np.ceil((total_mm / height_mm - SHARED_PART) / (1 - SHARED_PART)))
    size = count if number == 1 else min(count, round(height_mm / spacing))
    firsts = [0] if number == 1 else np.linspace(0, count - size, number).round().astype(int).tolist()
    sections = []
    for first in firsts:
        box = median_box(extents, axis, first, first + size)
        if box is not None:
            sections.append(Section(first, first + size, box))
    return tuple(sections)


def segment_in_boxes(
    volume: Volume,
    network: Predictor,
    spec: InputSpec,
    labels: LabelSet,
    *,
    progress: Callable[[int, int], None] | None = None,
    calibrations: Calibrations | None = None,
) -> Restored:
    """Label a volume with a fixed-shape network; argmax of the blended probabilities on the source grid.

    ``calibrations`` are those of classes whose mean probability is to be a calibrated one.

    Raises
    ------
    InferenceError
        If the spec lacks its fixed shape or section height, or scores are not finite.
    WeightsError
        If the labels name a class that the network does not have.
    """
    if spec.fixed_shape is None or spec.window_height_mm is None:
        raise InferenceError("these weights lack fixed_shape or window_height_mm", code=Code.INFERENCE)
    _, permutation, _ = volume.grid.reoriented("RAS")
    axis = permutation[2]
    sections = plan_sections(volume, axis, spec.window_height_mm)
    found = np.zeros(volume.grid.shape, dtype=np.uint8, order="F")
    won, total = np.zeros(256), np.zeros(256)
    scored = _scored(volume, network, spec, labels, sections, progress)
    active: list[tuple[Section, ModelGrid, Tensor]] = []
    upcoming = next(scored, None)
    for low in range(0, volume.grid.shape[axis], SLAB):
        high = min(low + SLAB, volume.grid.shape[axis])
        while upcoming is not None and upcoming[0].first < high:
            active.append(upcoming)
            upcoming = next(scored, None)
        active = [item for item in active if item[0].last > low]
        if active:
            label, best = _slab(active, axis, low, high, volume.grid.shape)
            index = [slice(None)] * 3
            index[axis] = slice(low, high)
            found[tuple(index)] = label
            classes, values = calibrated(torch.from_numpy(label), torch.from_numpy(best), calibrations or {})
            won += np.bincount(classes.numpy(), minlength=256)
            total += np.bincount(classes.numpy(), weights=values.numpy(), minlength=256)
    return Restored(found, {int(c): float(total[c] / won[c]) for c in np.flatnonzero(won) if c != 0})


def _scored(
    volume: Volume,
    network: Predictor,
    spec: InputSpec,
    labels: LabelSet,
    sections: tuple[Section, ...],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Section, ModelGrid, Tensor]]:
    """Each section's probabilities (classes, *fixed shape), on the CPU, just before they are needed."""
    if spec.fixed_shape is None:
        return
    for number, section in enumerate(sections):
        model_grid = ModelGrid.of_box(
            volume.grid,
            axis_codes=spec.axis_codes,
            shape=spec.fixed_shape,
            start=section.box.start,
            stop=section.box.stop,
        )
        tensor = normalise(sample(volume, model_grid, antialias=spec.antialias), spec)
        scores = probabilities(network(tensor[None, None]), network)[0].cpu()
        check_probabilities(scores, labels)
        if progress is not None:
            progress(number + 1, len(sections))
        yield section, model_grid, scores


def _slab(
    active: list[tuple[Section, ModelGrid, Tensor]], axis: int, low: int, high: int, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels and winning probabilities of slices ``low`` up to ``high`` in (i, j, k) order."""
    size = [high - low if a == axis else shape[a] for a in range(3)]
    weights = _slice_weights(active, low, high)
    covered = np.zeros(size, dtype=np.float32)
    best = torch.zeros(size)
    label = torch.zeros(size, dtype=torch.uint8)
    for c in range(active[0][2].shape[0]):
        blended = torch.zeros(size)
        for (section, model_grid, scores), weight in zip(active, weights, strict=True):
            first, last = max(low, section.first), min(high, section.last)
            if first >= last:
                continue
            region = [slice(a, b) for a, b in zip(model_grid.start, model_grid.stop, strict=True)]
            region[axis] = slice(first, last)
            coordinates = tuple(model_grid.model_coordinates(a)[region[a]] for a in range(3))
            arranged = scores[c].permute(model_grid.model_order((0, 1, 2))).contiguous()
            value = Interpolation(coordinates, like=arranged)(arranged)
            factor = torch.from_numpy(weight[first - low : last - low].astype(np.float32))
            along = [1, 1, 1]
            along[axis] = -1
            region[axis] = slice(first - low, last - low)
            blended[tuple(region)] += value * factor.reshape(along)
            if c == 0:
                covered[tuple(region)] += factor.reshape(along).numpy()
        if c == 0:
            best = blended + (1.0 - torch.from_numpy(covered))  # outside a section's box it is background
            continue
        better = blended > best
        best = torch.where(better, blended, best)
        label[better] = c
    return label.numpy(), best.numpy()


def _slice_weights(active: list[tuple[Section, ModelGrid, Tensor]], low: int, high: int) -> list[NDArray[np.float64]]:
    """Weight of each section per slice: a ramp from its ends, normalised so that the sections sum to 1."""
    slices = np.arange(low, high)
    raw = []
    for section, _, _ in active:
        inside = np.minimum(slices - section.first + 1, section.last - slices).astype(np.float64)
        raw.append(np.maximum(inside, 0.0))
    total = np.maximum(np.sum(raw, axis=0), 1e-9)
    return [weight / total for weight in raw]
