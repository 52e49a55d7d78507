"""Training cases of the packaged networks: a recipe's list of open scans, and how they are read.

Scans with labels, label maps that images are drawn from, made-up scenes without organs, and synthetic patients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.inference.frame import Frame
from agseg.inference.prepare import sample
from agseg.io.discover import discover
from agseg.io.nifti import read_labels
from agseg.io.read import read_volume
from agseg.io.resources import resource_path
from agseg.training.anatomy import OUTSIDE, complete, structures_on
from agseg.training.cases import AIR_HU, IGNORE, Case
from agseg.training.drawing import FIRST_SHELL, enclose
from agseg.training.negatives import Scene, make_scene
from agseg.training.phantom import make_case
from agseg.training.recipe import NetworkChoice
from agseg.training.sampler import PatchSettings
from agseg.training.settings import LoopSettings
from agseg.training.synthesis import Phase, Tissue
from agseg.weights.input_spec import InputSpec

__all__ = ["OpenCase", "PretrainRecipe", "Structure", "class_table", "label_path", "phantom_cases", "read_cases", "scene_cases"]

PHANTOM_COARSEN = 1.5
"""Voxel spacing of the synthetic patients, as a multiple of their site's: about that of the model grid."""

KIDNEY_RIGHT, KIDNEY_LEFT = 2, 3
PHANTOM_STRUCTURES = {"spleen": 1, "kidney": KIDNEY_LEFT, "liver": 5, "pancreas": 7}
"""Organs of the phantoms and their numbers in the label maps; kidneys are told apart by their side."""


@dataclass(frozen=True)
class OpenCase:
    """One open scan.

    Parameters
    ----------
    image, labels
        Paths below the data folder; ``labels`` may begin with ``train:`` for a label map that travels with agseg. Without an
        image, one is drawn from the label map at every step.
    known
        Classes its labels tell apart, None for all.
    weight
        How often it is drawn.
    phase
        When after the contrast medium it was taken, where that is known: how scores are grouped.
    """

    id: str
    labels: str
    image: str | None = None
    weight: float = 1.0
    known: tuple[int, ...] | None = None
    phase: Phase | None = None


@dataclass(frozen=True)
class Structure:
    """What a number of the label maps is: a tissue to be recoloured as, and a class of the network (0: background)."""

    tissue: Tissue
    label: int = 0


@dataclass(frozen=True)
class PretrainRecipe:
    """One packaged network's training.

    ``scenes`` are the made-up cases without organs: weight of each kind, ``scenes_each`` cases of it. ``phantoms`` are
    synthetic patients (``agseg phantom``): weight of each site, ``phantoms_each`` patients of it. ``wins_from`` is the
    probability from which a class beats the background, where that is not 0.5; it goes into the bias of the last layer.
    ``start_from`` is the packaged recipe whose network this one goes on from; None starts from a random network.
    ``stop_after`` leaves the schedule of ``loop`` at that step.
    ``left_out`` are scans of patients that no case shows, and ``negatives`` scans without any organ: what the network is
    measured on.
    """

    name: str
    title: str
    network: NetworkChoice
    input: InputSpec
    labels: dict[int, str]
    structures: dict[int, Structure]
    cases: tuple[OpenCase, ...]
    loop: LoopSettings
    scenes: dict[Scene, float] = field(default_factory=dict)
    scenes_each: int = 3
    phantoms: dict[str, float] = field(default_factory=dict)
    phantoms_each: int = 6
    patches: PatchSettings = field(default_factory=PatchSettings)
    wins_from: dict[int, float] = field(default_factory=dict)
    start_from: str | None = None
    stop_after: int | None = None
    left_out: tuple[OpenCase, ...] = ()
    negatives: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, probability in self.wins_from.items():
            if label not in self.labels or not 0 < probability < 1:
                raise RecipeError("wins_from needs a label and a probability", value={label: probability}, expected="0 < p < 1")
        both = {case.image for case in self.cases} & {case.image for case in self.left_out}
        if both:
            raise RecipeError("a scan is both trained on and left out", value=sorted(str(image) for image in both))


def read_cases(recipe: PretrainRecipe, data: Path, *, only: tuple[str, ...] = ()) -> list[Case]:
    """The recipe's scans on its model grid, read by the product's own readers.

    Raises
    ------
    RecipeError
        If a folder does not hold exactly one study, or a case named in ``only`` does not exist.
    """
    unknown = set(only) - {case.id for case in recipe.cases}
    if unknown:
        raise RecipeError("the recipe has no such case", value=sorted(unknown), expected=[case.id for case in recipe.cases])
    return [_read_case(case, recipe, data) for case in recipe.cases if not only or case.id in only]


def _read_case(case: OpenCase, recipe: PretrainRecipe, data: Path) -> Case:
    path = label_path(case, data)
    if case.image is None:
        return _drawn_case(case, recipe, path)
    studies = discover([data / case.image]).studies
    if len(studies) != 1:
        raise RecipeError("a case must be one study", path=data / case.image, value=len(studies), expected=1)
    volume = read_volume(studies[0])
    spec = recipe.input
    frame = Frame.at_spacing(volume.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    image = sample(volume, frame, antialias=spec.antialias)
    found = structures_on(frame.grid, path)
    whole = complete(image.numpy(), np.where(found == IGNORE, 0, found).astype(np.uint8))
    labels = torch.from_numpy(class_table(recipe)[found])
    return Case(case.id, image, labels, case.known, torch.from_numpy(whole), case.weight)


def _drawn_case(case: OpenCase, recipe: PretrainRecipe, path: Path) -> Case:
    """A label map on the model grid, enclosed by a body; its image only tells where that is."""
    header, _ = read_labels(path)
    spec = recipe.input
    frame = Frame.at_spacing(header.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    found = structures_on(frame.grid, path)
    whole = torch.from_numpy(enclose(found))
    body = (whole < FIRST_SHELL) & (whole != OUTSIDE)
    image = torch.where(body, 0.0, AIR_HU)
    labels = torch.from_numpy(class_table(recipe)[found])
    return Case(case.id, image, labels, case.known, whole, case.weight, drawn=True)


def label_path(case: OpenCase, data: Path) -> Path:
    """Where a case's label map is: in the data folder, or among those that travel with agseg."""
    inside = case.labels.removeprefix("train:")
    return resource_path("train") / inside if inside != case.labels else data / case.labels


def class_table(recipe: PretrainRecipe) -> NDArray[np.uint8]:
    """The network's class of every number of the label maps."""
    table = np.zeros(256, dtype=np.uint8)
    for number, structure in recipe.structures.items():
        table[number] = structure.label
    table[IGNORE] = IGNORE
    return table


def scene_cases(recipe: PretrainRecipe) -> list[Case]:
    """The recipe's made-up cases without organs, of their true size on its model grid."""
    each, spacing_mm = recipe.scenes_each, min(_spacing_mm(recipe))
    return [
        make_scene(scene, seed=n, spacing_mm=spacing_mm, weight=w / each)
        for scene, w in recipe.scenes.items()
        for n in range(each)
    ]


def _spacing_mm(recipe: PretrainRecipe) -> tuple[float, float, float]:
    if recipe.input.spacing_mm is None:
        raise RecipeError("the recipe's input needs a spacing", value=recipe.name)
    return recipe.input.spacing_mm


def phantom_cases(recipe: PretrainRecipe) -> list[Case]:
    """The recipe's synthetic patients on its model grid, all organs labelled."""
    each = recipe.phantoms_each
    return [_phantom(recipe, site, n, w / each) for site, w in recipe.phantoms.items() for n in range(1, each + 1)]


def _phantom(recipe: PretrainRecipe, site: str, index: int, weight: float) -> Case:
    """A synthetic patient with all its organs labelled, by the numbers of the real label maps."""
    made = make_case(site, index=index, seed=recipe.loop.seed, coarsen=PHANTOM_COARSEN, organs=tuple(PHANTOM_STRUCTURES))
    numbers = np.zeros(256, dtype=np.uint8)
    for label, number in zip(made.mask.label_set, PHANTOM_STRUCTURES.values(), strict=True):
        numbers[label.index] = number
    found = numbers[made.mask.labels]
    index_ijk = np.argwhere(found == KIDNEY_LEFT)
    right = made.volume.grid.to_world(index_ijk.astype(np.float64))[:, 0] > 0
    found[tuple(index_ijk[right].T)] = KIDNEY_RIGHT
    spec = recipe.input
    frame = Frame.at_spacing(made.volume.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    image = sample(made.volume, frame, antialias=spec.antialias)
    # Nearest: labels are numbers. The phantom's voxels are about as large as the model's.
    nearest = [
        np.rint(link.offset + link.scale * np.arange(n)).astype(int) for link, n in zip(frame.links, frame.shape, strict=True)
    ]
    source = [np.zeros(0, dtype=int)] * 3
    for link, at in zip(frame.links, nearest, strict=True):
        source[link.source_axis] = at.clip(0, made.volume.grid.shape[link.source_axis] - 1)
    on_model = found[np.ix_(*source)].transpose([link.source_axis for link in frame.links])
    whole = complete(image.numpy(), np.ascontiguousarray(on_model))
    return Case(made.id, image, torch.from_numpy(class_table(recipe)[on_model]), None, torch.from_numpy(whole), weight)
