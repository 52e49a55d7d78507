"""Measure packaged networks on patients that its training left out, and on scans without any organ: ``make weights-eval``."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from agseg.errors import RecipeError
from agseg.grid import Grid
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import load_network
from agseg.inference.segment import Segmentation
from agseg.labels import LabelSet
from agseg.measure.calibration import AS_IT_IS, Calibration
from agseg.measure.overlap import overlap
from agseg.measure.reliability import Tally, curve
from agseg.measure.surface import surface_dice, surface_distance
from agseg.training.anatomy import structures_on
from agseg.training.cases import IGNORE
from agseg.training.listing import OpenCase
from agseg.training.negatives import Scene, make_scene
from agseg.training.open_cases import class_table, label_path, read_scan
from agseg.training.recipe import Recipe, find_recipe
from agseg.volume import Volume
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.make_weights import OPEN_SCANS

_log = logging.getLogger(__name__)

TOLERANCE_MM = 2.0
"""Surfaces this close count as equal in the surface Dice."""

OUTPUT = Path("build") / "weights-eval"
HOME = Path("build") / "home"
"""Where packaged weights are unpacked to."""

SCENE_SEED, SCENE_SPACING_MM = 1000, 2.0
"""Made-up scenes other than those that are trained on, and finer."""

Segment = Callable[[Volume], Segmentation]
"""The product's prediction path with one network."""


@dataclass(frozen=True)
class OrganScore:
    """One organ of one scan that training did not see; voxels whose label is open are not counted.

    ``sure`` is the mean winning probability over the organ's voxels, as in every record, and ``right`` the part of them that
    the labels agree with: a network whose probabilities can be trusted has both alike. ``sure`` alone counts open voxels too,
    and those that clean-up took away. ``tally`` counts right and wrong voxels by the network's own probability.
    """

    case: str
    phase: str
    organ: str
    dice: float
    s2s_mm: float
    surface_dice: float
    truth_ml: float
    found_ml: float
    sure: float
    right: float
    tally: Tally | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Invented:
    """What was found in a scan that shows no organ of the network (ml, all organs together)."""

    name: str
    found_ml: float


def evaluate_left_out(recipe: Recipe, data: Path, segment: Segment) -> list[OrganScore]:
    """Every left-out scan of the recipe, organ by organ, on the scan's own grid."""
    scores: list[OrganScore] = []
    for case in recipe.left_out:
        volume = read_scan(data / str(case.image))
        scores += score_case(case, recipe, label_path(case, data), volume, segment(volume))
        _log.info("%s done", case.id)
    return scores


def score_case(case: OpenCase, recipe: Recipe, labels: Path, volume: Volume, found: Segmentation) -> list[OrganScore]:
    """The organs that the case's labels know and show; what lies beyond the label map is not counted either."""
    grid = volume.grid
    truth = class_table(recipe)[structures_on(grid, labels, outside=IGNORE)]
    counted = truth != IGNORE
    axes_mm = None if grid.is_rectangular else grid.affine[:3, :3]
    scores = []
    for label in LabelSet.from_mapping(recipe.labels):
        wanted = (truth == label.index) & counted
        if (case.known is not None and label.index not in case.known) or not wanted.any():
            continue
        mask = found.mask.of(label.name) & counted
        where = {"truth": wanted, "spacing_mm": grid.spacing_mm, "axes_mm": axes_mm}
        scores.append(
            OrganScore(
                case=case.id,
                phase=str(case.phase or "unknown"),
                organ=label.name,
                dice=overlap(mask, truth=wanted).dice,
                s2s_mm=surface_distance(mask, **where).s2s_mm,
                surface_dice=surface_dice(mask, **where, tolerance_mm=TOLERANCE_MM),
                truth_ml=float(wanted.sum()) * grid.voxel_volume_ml,
                found_ml=float(mask.sum()) * grid.voxel_volume_ml,
                sure=found.probability.get(label.name, math.nan),
                right=float((mask & wanted).sum() / mask.sum()) if mask.any() else math.nan,
                tally=None if found.certainty is None else Tally.of(found.certainty[mask], wanted[mask]),
            )
        )
    return scores


def evaluate_negatives(recipe: Recipe, data: Path, segment: Segment) -> list[Invented]:
    """What is found in each of the recipe's scans without organs, and in made-up heads, thighs, bodies and an empty table."""
    found = []
    for name, place in recipe.negatives.items():
        volume = read_scan(data / place)
        mask = segment(volume).mask
        found.append(Invented(name, float((mask.labels > 0).sum()) * volume.grid.voxel_volume_ml))
        _log.info("%s done", name)
    for scene in Scene:
        made = make_scene(scene, seed=SCENE_SEED, spacing_mm=SCENE_SPACING_MM)
        i, j, k = made.image.shape
        grid = Grid((i, j, k), np.diag([SCENE_SPACING_MM] * 3 + [1.0]))
        mask = segment(Volume(made.image.numpy(), grid)).mask
        found.append(Invented(f"made-up {scene}", float((mask.labels > 0).sum()) * grid.voxel_volume_ml))
    return found


def table(
    scores: Sequence[OrganScore], negatives: Sequence[Invented], calibration: Mapping[str, Calibration] | None = None
) -> str:
    """Dice / S2S (mm) / surface Dice per scan and organ, means, how sure and how right, and what was invented (Markdown)."""
    organs = list(dict.fromkeys(score.organ for score in scores))
    lines = ["| scan | phase | " + " | ".join(organs) + " |", "|---" * (len(organs) + 2) + "|"]
    for case, phase in dict.fromkeys((score.case, score.phase) for score in scores):
        own = {score.organ: score for score in scores if score.case == case}
        cells = [_cell(own[organ]) if organ in own else "" for organ in organs]
        lines.append(f"| {case} | {phase} | " + " | ".join(cells) + " |")
    for group in [*dict.fromkeys(score.phase for score in scores), "all"]:
        means = [_mean(s.dice for s in scores if s.organ == organ and group in ("all", s.phase)) for organ in organs]
        lines.append(f"| mean | {group} | " + " | ".join(_number(mean) for mean in means) + " |")
    lines += ["", "| | " + " | ".join(organs) + " |", "|---" * (len(organs) + 1) + "|"]
    for name, value in (("mean winning probability", "sure"), ("part of what is found that is right", "right")):
        means = [_mean(getattr(s, value) for s in scores if s.organ == organ) for organ in organs]
        lines.append(f"| {name} | " + " | ".join(_number(mean) for mean in means) + " |")
    lines += _calibration_lines(scores, organs, calibration or {})
    lines += ["", "| without organs | found (ml) |", "|---|---|"]
    lines += [f"| {item.name} | {item.found_ml:.1f} |" for item in negatives]
    return "\n".join(lines) + "\n"


def _calibration_lines(
    scores: Sequence[OrganScore], organs: Sequence[str], calibration: Mapping[str, Calibration]
) -> Iterator[str]:
    """The expected calibration error over scans, of what the network says and of what records say."""
    tallies = {organ: [s.tally for s in scores if s.organ == organ and s.tally is not None] for organ in organs}
    if not any(tallies.values()):
        return
    before = [curve(tallies[organ]).error if tallies[organ] else math.nan for organ in organs]
    yield "| calibration error of the network | " + " | ".join(_number(error) for error in before) + " |"
    if calibration:
        after = [curve(tallies[o], calibration.get(o, AS_IT_IS)).error if tallies[o] else math.nan for o in organs]
        yield "| calibration error of what is recorded | " + " | ".join(_number(error) for error in after) + " |"


def _cell(score: OrganScore) -> str:
    return f"{score.dice:.2f} / {_number(score.s2s_mm, 1)} / {score.surface_dice:.2f}"


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _number(value: float, places: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{places}f}"


def _rows(scores: Sequence[OrganScore]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "phase", "organ", "dice", "s2s_mm", "surface_dice_2mm", "truth_ml", "found_ml", "sure", "right"])
    for s in scores:
        values = (s.dice, s.s2s_mm, s.surface_dice, s.truth_ml, s.found_ml, s.sure, s.right)
        writer.writerow([s.case, s.phase, s.organ, *(f"{value:.4f}" for value in values)])
    return out.getvalue()


def chosen(manifest: Manifest, network: str | None, recipe_name: str | None) -> tuple[WeightsEntry, Recipe, Path | None]:
    """What is measured: the entry, the recipe that names its left-out scans, and the file where it is not the packaged one.

    Parameters
    ----------
    network
        Id of packaged weights, or a file; None for the liver's default.
    recipe_name
        The recipe that describes a file and names the left-out scans; None for the entry's own, for a file the default's.

    Raises
    ------
    RecipeError
        If the recipe names no left-out scan.
    """
    usual = manifest.default_for("liver", "CT").id
    file = Path(network) if network is not None and network not in manifest.by_id else None
    weights_id = network if network is not None and file is None else recipe_name or usual
    recipe = find_recipe(recipe_name or weights_id)
    if not recipe.left_out:
        raise RecipeError(
            "the recipe names no left-out scan", value=recipe.name, hint="RECIPE=NAME takes those of another recipe"
        )
    entry = manifest.entry(weights_id if weights_id in manifest.by_id else usual)
    return entry if file is None else replace(entry, input=recipe.input), recipe, file


def main(arguments: Sequence[str]) -> None:
    """``make weights-eval``: packaged weights (the default ones if none are named) or a file, on what a recipe left out."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="make weights-eval", description=main.__doc__)
    parser.add_argument("network", nargs="?", help="id of packaged weights, or a safetensors file")
    parser.add_argument("--recipe", help="name of a recipe in train/packaged")
    asked = parser.parse_args(arguments)
    entry, recipe, file = chosen(Manifest.load(), asked.network, asked.recipe)
    paths = (file,) if file is not None else WeightsCache(HOME, offline=True).ensure(entry)
    network = load_network(entry, paths, device=torch.device("cpu"))

    def segment(volume: Volume) -> Segmentation:
        return segment_with_entry(volume, network, entry, keep_certainty=True)

    scores, negatives = evaluate_left_out(recipe, OPEN_SCANS, segment), evaluate_negatives(recipe, OPEN_SCANS, segment)
    output = OUTPUT / (entry.id if file is None else file.stem)
    output.mkdir(parents=True, exist_ok=True)
    (output / "scores.csv").write_text(_rows(scores), encoding="utf-8")
    text = table(scores, negatives, entry.calibration)
    (output / "table.md").write_text(text, encoding="utf-8")
    _log.info("%s\n%s", output, text)


if __name__ == "__main__":
    main(sys.argv[1:])
