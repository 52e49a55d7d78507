"""What the review list's rules catch, and how often they are wrong: 40 made faults, and a network's own results.

    python -m benchmarks.review_faults DATA [--networks build/review-faults]

``DATA`` is the folder of open scans that ``train/packaged`` names. From the label maps of 14 patients' CTs 40 faulty ones are
made: eight each of two organs that are swapped, half an organ missing, an organ shifted by 30 mm, an organ that leaks (by 8 mm
all round, or into tissue like itself until it is 1.4 times as large), an organ on the wrong side. With ``--networks`` the
packaged network segments every scan that has labels, and its organs are right where their Dice with the label map says so.
Masks of an earlier run in that folder are not made again.

None of the label maps is ground truth (``train/labels/README.md``). The limits of :mod:`agseg.batch.usual` were set with the
sound maps in view, so that few false alarms on those are what the limits were made for; those of patches with the network's
masks in view too. The faults were not looked at before.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.batch.review import reviews
from agseg.batch.usual import MEAN_VOLUME_ML
from agseg.grid import Grid
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.labels import LabelSet
from agseg.measure.evidence import collect
from agseg.measure.volumes import measure, survey
from agseg.report import Measurement, OrganStatus
from agseg.training.anatomy import body_mask, structures_on
from agseg.training.listing import OpenCase
from agseg.training.open_cases import class_table, label_path
from agseg.training.recipe import Recipe, find_recipe
from agseg.volume import LabelMask, Volume

RECIPE = "attention-unet-3mm"

PATIENTS = (
    "totalseg_ct_full", "cort_liver_matrad", "acrin_flt_breast_001_abdpelvis", "cptac_pda_C3L-00189", "cptac_pda_C3N-00249",
    "lidc_0004_low", "lidc_0005_low", "pancreas_ct_cb_001", "hcc_tace_001_portal", "hcc_tace_005_1999-01_portal",
    "hcc_tace_006_portal", "hcc_tace_007_1998_portal", "hcc_tace_009_1998-03_portal", "hcc_tace_011_portal",
)  # fmt: skip
"""One scan of each patient who shows most of the upper abdomen."""

SHIFT_MM, LEAK_MM, LEAK_FACTOR = 30.0, 8.0, 1.4
EACH = 8

NEWER, OLDER = "attention-unet-3mm", "attention-unet-abdomen"
"""The two packaged networks that look at each other's results."""

RIGHT_DICE = {"pancreas": 0.5}
"""An organ of a network's is right from this Dice on; 0.8 for all others."""

Organs = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A scan with its labels (uint8, 0 where nobody knows)."""

    name: str
    volume: Volume
    mask: LabelMask
    unknown: NDArray[np.bool_]


@dataclass(frozen=True)
class Fault:
    """A made fault: its kind, the scan, the organs it is in, the mask."""

    kind: str
    case: Case
    organs: Organs
    mask: LabelMask


def cases(data: Path, recipe: Recipe, names: tuple[str, ...] | None) -> Iterator[Case]:
    """The scans with labels; ``names`` None gives all of them."""
    labels = LabelSet.from_mapping(recipe.labels)
    for case in (*recipe.cases, *recipe.left_out):
        if case.image is None or (names is not None and case.id not in names):
            continue
        (study,) = (study for study in discover([data / str(case.image)]).studies if study.rejected is None)
        volume = read_volume(study)
        yield _case(case, recipe, labels, volume, data)


def _case(case: OpenCase, recipe: Recipe, labels: LabelSet, volume: Volume, data: Path) -> Case:
    truth = class_table(recipe)[structures_on(volume.grid, label_path(case, data), outside=255)]
    unknown = truth == 255
    mask = np.asfortranarray(np.where(unknown, 0, truth).astype(np.uint8))
    return Case(case.id, volume, LabelMask(mask, volume.grid, labels), unknown)


# -- faults ---------------------------------------------------------------------------------------------------------------


def faults(scans: list[Case]) -> Iterator[Fault]:
    """Eight of each kind, over the patients and the organs in turn; a draw that a scan cannot show goes to the next one."""
    kinds = {"swapped": _swapped, "half missing": _half, "shifted": _shifted, "leaked": _leaked, "wrong side": _mirrored}
    for start, (kind, make) in enumerate(kinds.items()):
        made, at = 0, 3 * start
        while made < EACH:
            case = scans[at % len(scans)]
            at += 1
            found = make(case, made)
            if found is not None:
                yield Fault(kind, case, *found)
                made += 1


def _inside(case: Case, organ: str, *, whole: bool = False) -> NDArray[np.bool_] | None:
    """The organ's voxels; None where the scan does not show it (or, ``whole``, cuts it off)."""
    inside = case.mask.of(organ)
    if inside.sum() * case.mask.grid.voxel_volume_ml < 15:
        return None
    faces = (inside[at] for axis in range(3) for at in ((slice(None),) * axis + (end,) for end in (0, -1)))
    return None if whole and any(face.any() for face in faces) else inside


def _with(case: Case, changes: Mapping[str, NDArray[np.bool_]]) -> LabelMask:
    """The mask with organs replaced; they take no voxel of another organ."""
    labels = case.mask.labels.copy(order="K")
    indices = {name: case.mask.label_set[name].index for name in changes}
    labels[np.isin(labels, list(indices.values()))] = 0
    for name, inside in changes.items():
        labels[inside & (labels == 0)] = indices[name]
    return LabelMask(labels, case.mask.grid, case.mask.label_set)


def _swapped(case: Case, number: int) -> tuple[Organs, LabelMask] | None:
    first, second = (("liver", "spleen"), ("kidney_left", "kidney_right"), ("spleen", "kidney_left"))[number % 3]
    one, other = _inside(case, first), _inside(case, second)
    if one is None or other is None:
        return None
    return (first, second), _with(case, {first: other, second: one})


_TURN = ("liver", "kidney_left", "spleen", "pancreas", "kidney_right", "liver", "spleen", "pancreas")


def _half(case: Case, number: int) -> tuple[Organs, LabelMask] | None:
    organ = _TURN[number]
    inside = _inside(case, organ, whole=True)
    if inside is None:
        return None
    axis = _axis(case.mask.grid, "LR" if organ == "pancreas" or (organ == "liver" and number) else "SI")
    counts = np.cumsum(inside.sum(axis=tuple(a for a in range(3) if a != axis)))
    middle = int(np.searchsorted(counts, counts[-1] / 2))
    lost = slice(0, middle) if number % 2 else slice(middle, None)
    half = inside.copy()
    half[(slice(None),) * axis + (lost,)] = False
    return (organ,), _with(case, {organ: half})


def _shifted(case: Case, number: int) -> tuple[Organs, LabelMask] | None:
    organ = _TURN[(number + 2) % len(_TURN)]
    inside = _inside(case, organ)
    if inside is None:
        return None
    axis = number % 3
    steps = round(SHIFT_MM / case.mask.grid.spacing_mm[axis]) * (1 if number % 2 else -1)
    return (organ,), _with(case, {organ: _moved(inside, axis, steps)})


def _moved(inside: NDArray[np.bool_], axis: int, steps: int) -> NDArray[np.bool_]:
    moved = np.roll(inside, steps, axis=axis)
    moved[(slice(None),) * axis + (slice(0, steps) if steps > 0 else slice(steps, None),)] = False
    return moved


def _leaked(case: Case, number: int) -> tuple[Organs, LabelMask] | None:
    organ = _TURN[(number + 4) % len(_TURN)]
    inside = _inside(case, organ)
    if inside is None:
        return None
    grown = _grown(case, inside) if number % 2 else _dilated(inside, case.mask.grid, LEAK_MM)
    return (organ,), _with(case, {organ: grown | inside})


def _dilated(inside: NDArray[np.bool_], grid: Grid, by_mm: float) -> NDArray[np.bool_]:
    box = tuple(slice(max(0, s.start - 12), s.stop + 12) for s in ndimage.find_objects(inside.astype(np.uint8))[0])
    near = np.zeros_like(inside)
    near[box] = ndimage.distance_transform_edt(~inside[box], sampling=grid.spacing_mm) <= by_mm
    return near


def _grown(case: Case, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Into unlabelled tissue of the organ's own density, voxel layer by voxel layer, until it is large enough."""
    values = case.volume.voxels
    low, high = np.percentile(values[inside], [10, 90])
    free = (case.mask.labels == 0) & (values >= low) & (values <= high)
    grown, wanted = inside.copy(), LEAK_FACTOR * inside.sum()
    while grown.sum() < wanted:
        more = ndimage.binary_dilation(grown, mask=free | grown)
        if more.sum() == grown.sum():
            break
        grown = more
    return grown


def _mirrored(case: Case, number: int) -> tuple[Organs, LabelMask] | None:
    organ = ("liver", "spleen", "kidney_left", "kidney_right")[number % 4]
    inside = _inside(case, organ)
    if inside is None:
        return None
    axis = _axis(case.mask.grid, "LR")
    body = np.flatnonzero(body_mask(case.volume.voxels.astype(np.float32)).any(axis=tuple(a for a in range(3) if a != axis)))
    steps = int(body[0] + body[-1]) - (inside.shape[axis] - 1)
    flipped = np.flip(inside, axis=axis)
    return (organ,), _with(case, {organ: _moved(flipped, axis, steps) if steps else flipped})


def _axis(grid: Grid, pair: str) -> int:
    return next(axis for axis, code in enumerate(grid.axis_codes) if code in pair)


# -- rules ----------------------------------------------------------------------------------------------------------------


def after(mask: LabelMask, volume: Volume, facts: dict[str, dict[str, float]] | None = None) -> dict[str, tuple[str, ...]]:
    """The rules of today."""
    facts = facts or {"probability": {}, "components": {}}
    walked = survey(mask, volume)
    components = {name: int(count) for name, count in facts["components"].items()}
    evidence = collect(mask, volume, walked)
    return reviews(measure(mask, volume, walked), evidence, probability=facts["probability"], components=components)


def before(mask: LabelMask, volume: Volume, facts: dict[str, dict[str, float]] | None = None) -> dict[str, tuple[str, ...]]:
    """The rules that came first: volume, margin, pieces, and that an organ is cut off."""
    facts = facts or {"probability": {}, "components": {}}
    return {found.name: tuple(_before(found, facts)) for found in measure(mask, volume)}


def _before(found: Measurement, facts: dict[str, dict[str, float]]) -> Iterator[str]:
    if found.volume_ml is None:
        return
    low, high = MEAN_VOLUME_ML[found.name][0] / 3, MEAN_VOLUME_ML[found.name][1] * 3
    cut_off = found.status is OrganStatus.CUT_OFF
    if found.volume_ml > high or (found.volume_ml < low and not cut_off):
        yield "implausible volume"
    if facts["probability"].get(found.name, 1.0) < 0.7:
        yield "low margin"
    if facts["components"].get(found.name, 0) > 5:
        yield "many components"
    if cut_off:
        yield "cut off by the field of view"


# -- tables ---------------------------------------------------------------------------------------------------------------


def faults_table(made: list[Fault], *, details: bool) -> str:
    """Faults whose organ has a reason, by kind, before and after."""
    lines = ["| fault | made | before | of them for 'cut off' alone | after |", "|---|---|---|---|---|"]
    totals = np.zeros(4, dtype=int)
    for kind, group in itertools.groupby(made, key=lambda fault: fault.kind):
        row = np.zeros(4, dtype=int)
        for fault in group:
            old = [reason for organ in fault.organs for reason in before(fault.mask, fault.case.volume)[organ]]
            new = [reason for organ in fault.organs for reason in after(fault.mask, fault.case.volume)[organ]]
            row += [1, bool(old), bool(old) and all(reason.startswith("cut off") for reason in old), bool(new)]
            if details:
                print(f"{fault.kind}: {fault.case.name}, {' and '.join(fault.organs)}: {'; '.join(new) or 'MISSED'}")
        totals += row
        lines.append(f"| {kind} | {row[0]} | {row[1]} | {row[2]} | {row[3]} |")
    return "\n".join([*lines, f"| all | {totals[0]} | {totals[1]} | {totals[2]} | {totals[3]} |"])


def sound_table(scans: list[Case], *, details: bool) -> str:
    """Reasons on the label maps as they are: false alarms."""
    lines = ["| sound label maps | organs | with a reason | studies | on the list |", "|---|---|---|---|---|"]
    for title, rules in (("before", before), ("after", after)):
        found = [rules(case.mask, case.volume) for case in scans]
        shown = [
            [reasons for name, reasons in one.items() if _inside_at_all(case, name)]
            for case, one in zip(scans, found, strict=True)
        ]
        organs = [bool(reasons) for study in shown for reasons in study]
        lines.append(f"| {title} | {len(organs)} | {sum(organs)} | {len(shown)} | {sum(any(study) for study in shown)} |")
        if details and rules is after:
            for case, one in zip(scans, found, strict=True):
                for name, reasons in one.items():
                    if reasons:
                        print(f"sound: {case.name}, {name}: {'; '.join(reasons)}")
    return "\n".join(lines)


def _inside_at_all(case: Case, organ: str) -> bool:
    return bool(case.mask.of(organ).any())


def network_table(scans: list[Case], cache: Path, *, details: bool) -> str:
    """A network's organs, right and wrong by their Dice with the label map, and how many of either have a reason."""
    counts = {"before": np.zeros((2, 2), dtype=int), "after": np.zeros((2, 2), dtype=int)}
    for case in scans:
        mask, facts = _segmented(case, cache)
        for title, rules in (("before", before), ("after", after)):
            for organ, reasons in rules(mask, case.volume, facts).items():
                right = _is_right(case, mask, organ)
                if right is None:
                    continue
                counts[title][int(not right), int(bool(reasons))] += 1
                if details and title == "after" and (bool(reasons) or not right):
                    print(
                        f"network, {'right' if right else 'WRONG'}: {case.name}, {organ}: {'; '.join(reasons) or 'no reason'}"
                    )
    lines = ["| a network's organs | wrong | of them with a reason | right | of them with a reason |", "|---|---|---|---|---|"]
    for title, table in counts.items():
        lines.append(f"| {title} | {table[1].sum()} | {table[1, 1]} | {table[0].sum()} | {table[0, 1]} |")
    return "\n".join(lines)


def _is_right(case: Case, mask: LabelMask, organ: str) -> bool | None:
    """None where the label map knows nothing of the organ."""
    truth, found = case.mask.of(organ), mask.of(organ) & ~case.unknown
    if not truth.any():
        return None
    dice = 2 * int((truth & found).sum()) / int(truth.sum() + found.sum())
    return dice >= RIGHT_DICE.get(organ, 0.8)


def _segmented(case: Case, cache: Path, network: str = OLDER) -> tuple[LabelMask, dict[str, dict[str, float]]]:
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{case.name}.{network}.npz"
    if not path.exists():
        _segment(case, path, network)
    kept = np.load(path)
    meta = json.loads(str(kept["facts"]))
    labels = LabelSet.from_mapping({int(index): name for index, name in meta["labels"].items()})
    return LabelMask(np.asfortranarray(kept["mask"]), case.volume.grid, labels), meta


def _segment(case: Case, path: Path, name: str) -> None:
    import torch

    from agseg.inference.network import load_network
    from agseg.inference.by_entry import segment_with_entry
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest

    entry = Manifest.load().entry(name)
    network = load_network(entry, WeightsCache(path.parent / "home", offline=True).ensure(entry), device=torch.device("cpu"))
    made = segment_with_entry(case.volume, network, entry)
    facts = {
        "probability": made.probability,
        "components": made.components,
        "labels": {label.index: label.name for label in made.mask.label_set},
    }
    np.savez_compressed(path, mask=made.mask.labels, facts=json.dumps(facts))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", type=Path, help="segment with the packaged network too; masks are kept in this folder")
    parser.add_argument("--details", action="store_true", help="a line per fault and reason")
    given = parser.parse_args()
    recipe = find_recipe(RECIPE)
    scans = list(cases(given.data, recipe, PATIENTS))
    print(faults_table(list(faults(scans)), details=given.details), end="\n\n")
    print(sound_table(scans, details=given.details), end="\n\n")
    if given.networks:
        every = list(cases(given.data, recipe, None))
        print(network_table(every, given.networks, details=given.details))


if __name__ == "__main__":
    main()
