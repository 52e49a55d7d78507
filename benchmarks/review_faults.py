"""What the review list's rules catch, and how often they are wrong: 40 made faults, and a network's own results.

    python -m benchmarks.review_faults DATA [--networks build/review-faults]

``DATA`` is the folder of open scans that ``train/packaged`` names. From the label maps of 14 patients' CTs 40 faulty ones are
made: eight each of two organs that are swapped, half an organ missing, an organ shifted by 30 mm, an organ that leaks (by 8 mm
all round, or into tissue like itself until it is 1.4 times as large), an organ on the wrong side. With ``--networks`` two
packaged networks segment every scan that has labels; their organs are right where their Dice with the label map says so, and
each takes a second look at the other's (``segment --second-look``) and at the faults. Masks of an earlier run in that folder
are not made again.

None of the label maps is ground truth (``train/labels/README.md``). The limits of :mod:`agseg.measure.usual` were set with the
sound maps in view, so that few false alarms on those are what the limits were made for; those of patches with the network's
masks in view too. The faults were not looked at before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from agseg.grid import Grid
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.labels import LabelSet
from agseg.measure.agreement import agreement
from agseg.measure.evidence import collect
from agseg.measure.review import SecondLook, reviews
from agseg.measure.usual import MEAN_VOLUME_ML
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
    calibrated = facts.get("calibrated", {})
    probability = facts["probability"]
    return reviews(
        measure(mask, volume, walked), evidence, probability=probability, components=components, calibrated=calibrated
    )


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


def disagreements(mask: LabelMask, case: Case, cache: Path, network: str) -> dict[str, bool]:
    """Where another network disagrees with a mask, as ``segment --second-look`` says it; unknown labels are left out."""
    other, _ = _segmented(case, cache, network)
    known = LabelMask(np.where(case.unknown, np.uint8(0), other.labels), other.grid, other.label_set)
    look = SecondLook(network, agreement(mask, known))
    found = reviews(measure(mask, case.volume), {}, probability={}, components={}, second=look)
    return {organ: any(reason.startswith("networks disagree") for reason in reasons) for organ, reasons in found.items()}


def faults_table(made: list[Fault], cache: Path | None, *, details: bool) -> str:
    """Faults whose organ has a reason, by kind: first rules, today's, and (with ``cache``) what a second network sees."""
    heads = ["fault", "made", "before", "of them for 'cut off' alone", "after", *_SECOND[: 2 if cache else 0]]
    rows: dict[str, NDArray[np.int64]] = {}
    for fault in made:
        old = [reason for organ in fault.organs for reason in before(fault.mask, fault.case.volume)[organ]]
        new = [reason for organ in fault.organs for reason in after(fault.mask, fault.case.volume)[organ]]
        facts = [True, bool(old), bool(old) and all(reason.startswith("cut off") for reason in old), bool(new)]
        if cache:
            seen = disagreements(fault.mask, fault.case, cache, OLDER)
            differs = any(seen[organ] for organ in fault.organs)
            facts += [differs, differs or bool(new)]
        rows[fault.kind] = rows.get(fault.kind, np.zeros(len(facts), dtype=np.int64)) + facts
        if details:
            told = f"{'; '.join(new) or 'MISSED'}{', a second network disagrees' if cache and differs else ''}"
            print(f"{fault.kind}: {fault.case.name}, {' and '.join(fault.organs)}: {told}")
    return _table(heads, [*rows.items(), ("all", np.sum([*rows.values()], axis=0))])


def sound_table(scans: list[Case], cache: Path | None, *, details: bool) -> str:
    """Reasons on the label maps as they are: false alarms."""
    rows = []
    ways: dict[str, Callable[[Case], dict[str, bool]]] = {
        "before": lambda case: _given(before(case.mask, case.volume)),
        "after": lambda case: _given(after(case.mask, case.volume)),
    }
    if cache:
        ways[_SECOND[0]] = lambda case: disagreements(case.mask, case, cache, OLDER)
    for title, way in ways.items():
        shown = [{name: hit for name, hit in way(case).items() if _inside_at_all(case, name)} for case in scans]
        organs = [hit for study in shown for hit in study.values()]
        rows.append((title, [len(organs), sum(organs), len(shown), sum(any(study.values()) for study in shown)]))
        if details:
            for case, study in zip(scans, shown, strict=True):
                print(f"sound, {title}: {case.name}: {', '.join(name for name, hit in study.items() if hit) or 'nothing'}")
    return _table(["sound label maps", "organs", "with a reason", "studies", "on the list"], rows)


def _given(reasons: dict[str, tuple[str, ...]]) -> dict[str, bool]:
    return {organ: bool(given) for organ, given in reasons.items()}


def _table(heads: list[str], rows: Iterable[tuple[str, Iterable[int]]]) -> str:
    lines = [heads, ["---"] * len(heads), *([title, *map(str, numbers)] for title, numbers in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_SECOND = ("a second network disagrees", "after, or a second network disagrees")


def _inside_at_all(case: Case, organ: str) -> bool:
    return bool(case.mask.of(organ).any())


def network_table(scans: list[Case], cache: Path, *, network: str, second: str, details: bool) -> str:
    """A network's organs, right and wrong by their Dice with the label map, and how many of either have a reason."""
    counts = {title: np.zeros((2, 2), dtype=int) for title in ("before", "after", *_SECOND)}
    for case in scans:
        mask, facts = _segmented(case, cache, network)
        known = LabelMask(np.where(case.unknown, np.uint8(0), mask.labels), mask.grid, mask.label_set)
        hits = {
            "before": _given(before(mask, case.volume, facts)),
            "after": _given(after(mask, case.volume, facts)),
            _SECOND[0]: disagreements(known, case, cache, second),
        }
        hits[_SECOND[1]] = {organ: hit or hits["after"][organ] for organ, hit in hits[_SECOND[0]].items()}
        for organ in mask.label_set.names:
            right = _is_right(case, mask, organ)
            if right is None:
                continue
            for title, hit in hits.items():
                counts[title][int(not right), int(hit[organ])] += 1
            if details and (not right or hits[_SECOND[1]][organ]):
                told = ", ".join(title for title in ("after", _SECOND[0]) if hits[title][organ])
                print(f"{network}, {'right' if right else 'WRONG'}: {case.name}, {organ}: {told or 'no reason'}")
    heads = [f"organs of {network}", "wrong", "of them with a reason", "right", "of them with a reason"]
    return _table(heads, [(title, [t[1].sum(), t[1, 1], t[0].sum(), t[0, 1]]) for title, t in counts.items()])


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

    from agseg.inference.by_entry import segment_with_entry
    from agseg.inference.network import load_network
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest

    entry = Manifest.load().entry(name)
    network = load_network(entry, WeightsCache(path.parent / "home", offline=True).ensure(entry), device=torch.device("cpu"))
    made = segment_with_entry(case.volume, network, entry)
    facts = {
        "probability": made.probability,
        "components": made.components,
        "calibrated": dict.fromkeys(entry.calibration, True),
        "labels": {label.index: label.name for label in made.mask.label_set},
    }
    np.savez_compressed(path, mask=made.mask.labels, facts=json.dumps(facts))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", type=Path, help="segment with two packaged networks too; masks are kept in this folder")
    parser.add_argument("--details", action="store_true", help="a line per fault and reason")
    given = parser.parse_args()
    recipe = find_recipe(RECIPE)
    cache: Path | None = given.networks
    scans = list(cases(given.data, recipe, PATIENTS))
    print(faults_table(list(faults(scans)), cache, details=given.details), end="\n\n")
    print(sound_table(scans, cache, details=given.details), end="\n\n")
    if cache:
        every = list(cases(given.data, recipe, None))
        unseen = {case.id for case in recipe.left_out}
        for title, some in (("all scans", every), ("left-out patients", [c for c in every if c.name in unseen])):
            for network, second in ((NEWER, OLDER), (OLDER, NEWER)):
                print(title)
                print(network_table(some, cache, network=network, second=second, details=given.details), end="\n\n")


if __name__ == "__main__":
    main()
