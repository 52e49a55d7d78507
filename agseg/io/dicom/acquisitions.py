"""Several passes of the scanner under one SeriesInstanceUID, arterial and portal phase for example, told apart by headers.

Passes may lie at the same places (two images at every position), or half a step apart, where they would make one evenly spaced
volume that shows two moments slice by slice. A series whose acquisitions follow one another along the body (step and shoot) is
one pass. Passes within seconds of each other are a dynamic scan (perfusion), which has no single volume.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.io.dicom.image import Image, Span, span_of, stack_of
from agseg.io.dicom.slice_header import SliceHeader
from agseg.volume import Warned

MOST_PASSES = 8
"""More passes than this are a dynamic scan."""

LEAST_PAUSE_S = 5.0
"""Passes that begin within this of each other are a dynamic scan: phases of contrast medium lie at least 10 s apart."""

MINIMAL_POSITIONS = 3


@dataclass(frozen=True, eq=False)
class Pass:
    """The images of one pass.

    ``name`` is None where the series has one pass only; ``strays`` were acquired apart, at places of the pass (monitoring).
    """

    images: tuple[Image, ...]
    name: str | None = None
    strays: tuple[Image, ...] = ()
    warnings: tuple[Warned, ...] = ()


_Parts = list[list[Image]]
_Key = Callable[[SliceHeader], Hashable]

_KEYS: dict[str, _Key] = {
    "temporal position": lambda header: header.temporal_position,
    "acquisition number": lambda header: header.acquisition_number,
    "cardiac phase": lambda header: header.cardiac_phase,
    "trigger time": lambda header: header.trigger_time_ms,
    "tube voltage": lambda header: header.kvp,
    "echo time": lambda header: header.echo_time_ms,
    "image type": lambda header: header.image_type,
    "kernel": lambda header: header.kernel,
    "frame of reference": lambda header: header.frame_of_reference,
    "series time": lambda header: (header.series_date, header.series_time),
}
_ORDERED = ("acquisition time", "instance number")
_IN_TIME = frozenset({"temporal position", "acquisition number", "acquisition time", "series time"})


def split_passes(images: Sequence[Image]) -> list[Pass]:
    """The passes of a series, in order of time; one without a name where nothing tells several apart.

    Raises
    ------
    InputError
        ``E_4D`` for a dynamic scan, ``E_MIXED_SERIES`` for two scans that nothing but their repeated numbers shows.
    """
    if not all(image.frames for image in images):
        return [Pass(tuple(images))]
    _refuse_passes_within_files(images)
    normal = _normal(images)
    whole = span_of(images, normal)
    one_volume = whole is not None and not whole.has_duplicates
    for names, parts in _partitions(images, pairs=not one_volume):
        spans = [span_of(part, normal) for part in parts]
        if one_volume and not _interleaved(spans):
            continue
        found = _as_passes(names, parts, spans, normal)
        if found is not None:
            return found
    if one_volume and _numbers_repeat(images):
        return _split_by_folder(images, normal)
    return [Pass(tuple(images))]


def _normal(images: Sequence[Image]) -> NDArray[np.float64]:
    """Of the first image with an orientation; along the body where none has one."""
    for image in images:
        cosines = image.frames[0].plane.orientation
        if cosines is not None and len(cosines) == 6 and np.isfinite(cosines).all():
            normal = np.cross(cosines[:3], cosines[3:])
            length = float(np.linalg.norm(normal))
            if length > 0:
                return np.asarray(normal / length, dtype=np.float64)
    return np.array([0.0, 0.0, 1.0])


def _partitions(images: Sequence[Image], *, pairs: bool) -> Iterable[tuple[tuple[str, ...], _Parts]]:
    """Ways to part the images by one thing that differs, then by two."""
    single: dict[str, dict[int, int]] = {}
    for name in (*_KEYS, *_ORDERED):
        labels = _ordered_labels(images, name) if name in _ORDERED else _key_labels(images, _KEYS[name])
        if len(set(labels.values())) > 1:
            single[name] = labels
    for names in (*((name,) for name in single), *(combinations(single, 2) if pairs else ())):
        groups: dict[tuple[int, ...], list[Image]] = defaultdict(list)
        for image in images:
            groups[tuple(single[name][id(image)] for name in names)].append(image)
        if len(groups) <= max(MOST_PASSES * 4, len(images) // MINIMAL_POSITIONS + MOST_PASSES):
            yield names, list(groups.values())


def _key_labels(images: Sequence[Image], key: _Key) -> dict[int, int]:
    numbers: dict[Hashable, int] = {}
    return {id(image): numbers.setdefault(key(image.header), len(numbers)) for image in images}


def _ordered_labels(images: Sequence[Image], name: str) -> dict[int, int]:
    """Runs along the body, in order of time or of number: where the scanner comes back to places it has been at, a pass begins.

    Images of one moment belong to one rotation and are looked at together.
    """
    order: dict[Any, list[Image]] = defaultdict(list)
    for image in images:
        value = _seconds(image.header) if name == "acquisition time" else image.header.instance_number
        if value is None:
            return {}
        order[value].append(image)
    if name == "instance number" and len(order) < len(images):
        return {}
    normal = _normal(images)
    labels: dict[int, int] = {}
    number, low, high = 0, np.inf, -np.inf
    for _, together in sorted(order.items()):
        places = [_place(image, normal) for image in together]
        first, last = min(places), max(places)
        if first <= high and last >= low:
            number, low, high = number + 1, first, last
        low, high = min(low, first), max(high, last)
        labels.update({id(image): number for image in together})
    return labels


def _place(image: Image, normal: NDArray[np.float64]) -> float:
    position = image.frames[0].plane.position_mm
    if position is None or len(position) != 3:
        return float("nan")
    return float(np.asarray(position) @ normal)


def _interleaved(spans: Sequence[Span | None]) -> bool:
    """Whether every part is a volume of its own, and at least two lie in the same places."""
    known = [span for span in spans if span is not None]
    return len(known) == len(spans) and any(a.overlaps(b) for a, b in combinations(known, 2))


def _as_passes(
    names: tuple[str, ...], parts: _Parts, spans: Sequence[Span | None], normal: NDArray[np.float64]
) -> list[Pass] | None:
    """The parts as passes: sound volumes, and strays that lie at places of one; None where they are neither."""
    good = [(part, span) for part, span in zip(parts, spans, strict=True) if span is not None and not span.has_duplicates]
    rest = [part for part, span in zip(parts, spans, strict=True) if span is None or span.has_duplicates]
    # A number alone shows that an image was sent apart, not that it was acquired apart: it may be a copy.
    if not good or (rest and names == ("instance number",)):
        return None
    strays: dict[int, list[Image]] = defaultdict(list)
    for part in rest:
        places = {round(_place(image, normal), 2) for image in part}
        home = next((n for n, (_, span) in enumerate(good) if all(span.holds(place) for place in places)), None)
        apart = not any(span.continues_at(place) for _, span in good for place in places)
        if len(places) >= MINIMAL_POSITIONS or (home is None and not apart):
            return None
        strays[home or 0].extend(part)
    if not strays and not any(a.meets(b) for (_, a), (_, b) in combinations(good, 2)):
        # Pieces one behind the other are not passes: between them slices may have been lost.
        return None
    found = [Pass(tuple(part), None, tuple(strays[n])) for n, (part, _) in enumerate(good)]
    if len(found) == 1:
        return found
    if _IN_TIME.intersection(names):
        _refuse_dynamic([one.images for one in found])
    return _named(found)


def _named(found: list[Pass]) -> list[Pass]:
    """In order of time, with the acquisition's number where each has one of its own, else counted from 1."""
    found.sort(key=lambda one: _rank(one.images))
    numbers = [{image.header.acquisition_number for image in one.images} for one in found]
    own = [next(iter(number)) for number in numbers if len(number) == 1]
    usable = [number for number in own if number is not None and number >= 0]
    names = usable if len(set(usable)) == len(found) else range(1, len(found) + 1)
    return [replace(one, name=str(name)) for one, name in zip(found, names, strict=True)]


def _rank(images: Sequence[Image]) -> tuple[float, int, int, str]:
    times = [time for image in images if (time := _seconds(image.header)) is not None]
    numbers = [image.header.acquisition_number or 0 for image in images]
    instances = [image.header.instance_number or 0 for image in images]
    return min(times, default=0.0), min(numbers), min(instances), str(images[0].file.below)


def _refuse_dynamic(parts: Sequence[Sequence[Image]]) -> None:
    starts = sorted(min(times) for part in parts if (times := _times(part)))
    pauses = [b - a for a, b in pairwise(starts)]
    if len(parts) > MOST_PASSES or any(0 < pause < LEAST_PAUSE_S for pause in pauses):
        raise InputError(
            "several time points of a dynamic scan",
            code=Code.FOUR_D,
            value=f"{len(parts)} passes",
            expected=f"at most {MOST_PASSES}, at least {LEAST_PAUSE_S:.0f} s apart",
        )


def _times(images: Iterable[Image]) -> list[float]:
    return [time for image in images if (time := _seconds(image.header)) is not None]


def _seconds(header: SliceHeader) -> float | None:
    """When the image was acquired (s since some day); None where the header does not say."""
    moment = header.acquisition_datetime or (header.acquisition_time and (header.acquisition_date + header.acquisition_time))
    whole, _, fraction = moment.partition(".")
    if len(whole) in (4, 6):
        whole = "00000101" + whole
    whole = whole.ljust(14, "0")
    if not whole.isdecimal() or len(whole) != 14 or not moment:
        return None
    days = int(whole[:4]) * 372 + int(whole[4:6]) * 31 + int(whole[6:8])
    clock = int(whole[8:10]) * 3600 + int(whole[10:12]) * 60 + int(whole[12:14])
    return days * 86400 + clock + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)


def _numbers_repeat(images: Sequence[Image]) -> bool:
    """Whether one acquisition has most of its InstanceNumbers twice, at different places: two scans that only look like one.

    A number that all images share was put there by somebody who removes identities, and tells nothing.
    """
    if any(len(image.frames) > 1 or image.header.instance_number is None for image in images):
        return False
    counts = Counter((image.header.acquisition_number, image.header.instance_number) for image in images)
    repeated = sum(count > 1 for count in counts.values())
    return len(counts) >= MINIMAL_POSITIONS and repeated >= 0.5 * len(counts)


def _split_by_folder(images: Sequence[Image], normal: NDArray[np.float64]) -> list[Pass]:
    folders: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        folders[(str(image.file.root), image.file.folder)].append(image)
    parts = list(folders.values())
    sound = all(span is not None and not span.has_duplicates for span in (span_of(part, normal) for part in parts))
    if len(parts) < 2 or not sound or any(_numbers_repeat(part) for part in parts):
        raise InputError("InstanceNumbers repeat: two scans stand under one SeriesInstanceUID", code=Code.MIXED_SERIES)
    odd = Warned(Code.IDENTITY_ODD, "InstanceNumbers repeat in the series: its folders were taken for scans of their own")
    passes = [Pass(tuple(part), warnings=(odd,)) for part in parts]
    passes.sort(key=lambda one: _rank(one.images))
    return [replace(one, name=str(number)) for number, one in enumerate(passes, start=1)]


def _refuse_passes_within_files(images: Sequence[Image]) -> None:
    """Frames of several moments in one multi-frame file: no part of a file makes a study."""
    for image in images:
        moments: dict[Hashable, list[Any]] = defaultdict(list)
        for frame in image.frames:
            moments[frame.moment].append(frame)
        if len(moments) < 2:
            continue
        normal = _normal([image])
        parts = [Image(image.file, image.header, tuple(frames)) for frames in moments.values()]
        if _interleaved([span_of([part], normal) for part in parts]) and not _has_duplicates(image):
            raise InputError(
                "several time points or phases in one file", code=Code.FOUR_D, value=len(moments), expected="one per file"
            )


def _has_duplicates(image: Image) -> bool:
    """Then the reader sees it, and can tell copies from phases."""
    try:
        return stack_of([image]).has_duplicates
    except InputError:
        return True
