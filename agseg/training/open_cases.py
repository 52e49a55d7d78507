"""Training cases beside a cohort's: the scans that a recipe lists, made-up scenes without organs, and synthetic patients.

Listed are scans with labels, and label maps that images are drawn from. The packaged networks are trained on such lists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.inference.model_grid import ModelGrid
from agseg.inference.prepare import sample
from agseg.io.discover import discover
from agseg.io.nifti import read_labels
from agseg.io.read import read_volume
from agseg.io.resources import resource_path
from agseg.training.anatomy import OUTSIDE, complete, structures_on
from agseg.training.cases import AIR_HU, IGNORE, Case
from agseg.training.drawing import FIRST_SHELL, enclose
from agseg.training.listing import OpenCase
from agseg.training.negatives import make_scene
from agseg.training.phantom import make_case
from agseg.training.recipe import Recipe
from agseg.training.splits import Split
from agseg.volume import Volume

PHANTOM_COARSEN = 1.5
"""Voxel spacing of the synthetic patients, as a multiple of their site's: about that of the model grid."""

KIDNEY_RIGHT, KIDNEY_LEFT = 2, 3
PHANTOM_STRUCTURES = {"spleen": 1, "kidney": KIDNEY_LEFT, "liver": 5, "pancreas": 7}
"""Organs of the phantoms and their numbers in the label maps; kidneys are told apart by their side."""

_FOLDER = "--data names the folder that the recipe's paths start from."


def listed_split(recipe: Recipe, *, fold: int = 0) -> Split:
    """The recipe's list as a split: all cases are trained on, and those that it leaves out are the test side.

    Raises
    ------
    RecipeError
        If another fold than the only one is asked for.
    """
    if fold:
        raise RecipeError("a recipe that lists its cases has one fold", value=fold, expected="--fold 0")
    return Split(tuple(case.id for case in recipe.cases), test=tuple(case.id for case in recipe.left_out))


def read_cases(recipe: Recipe, data: Path, *, only: tuple[str, ...] = ()) -> list[Case]:
    """The recipe's scans, all or only some by id, on its model grid, read by the product's own readers.

    Raises
    ------
    RecipeError
        If a folder does not hold exactly one study, or a case named in ``only`` does not exist.
    """
    unknown = set(only) - {case.id for case in recipe.cases}
    if unknown:
        raise RecipeError("the recipe has no such case", value=sorted(unknown), expected=[case.id for case in recipe.cases])
    return [_read_case(case, recipe, data) for case in recipe.cases if not only or case.id in only]


def read_scan(place: Path) -> Volume:
    """The one study of a listed file or folder.

    Raises
    ------
    RecipeError
        If there is none, or several.
    """
    studies = discover([place]).studies if place.exists() else ()
    if len(studies) != 1:
        found = f"{len(studies)} studies" if place.exists() else "no such file or folder"
        raise RecipeError("a listed case must be one study", path=place, value=found, expected="one", hint=_FOLDER)
    return read_volume(studies[0])


def _read_case(case: OpenCase, recipe: Recipe, data: Path) -> Case:
    path = label_path(case, data)
    if case.image is None:
        return _drawn_case(case, recipe, path)
    volume = read_scan(data / case.image)
    spec = recipe.input
    model_grid = ModelGrid.at_spacing(volume.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    image = sample(volume, model_grid, antialias=spec.antialias)
    found = structures_on(model_grid.grid, path)
    whole = complete(image.numpy(), np.where(found == IGNORE, 0, found).astype(np.uint8))
    labels = torch.from_numpy(class_table(recipe)[found])
    return Case(case.id, image, labels, case.known, torch.from_numpy(whole), case.weight)


def _drawn_case(case: OpenCase, recipe: Recipe, path: Path) -> Case:
    """A label map on the model grid, enclosed by a body; its image only tells where that is."""
    header, _ = read_labels(path)
    spec = recipe.input
    model_grid = ModelGrid.at_spacing(header.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    found = structures_on(model_grid.grid, path)
    whole = torch.from_numpy(enclose(found))
    body = (whole < FIRST_SHELL) & (whole != OUTSIDE)
    image = torch.where(body, 0.0, AIR_HU)
    labels = torch.from_numpy(class_table(recipe)[found])
    return Case(case.id, image, labels, case.known, whole, case.weight, drawn=True)


def label_path(case: OpenCase, data: Path) -> Path:
    """Where a case's label map is: in the data folder, or among those that travel with agseg.

    Raises
    ------
    RecipeError
        If it is not there.
    """
    inside = case.labels.removeprefix("train:")
    path = resource_path("train") / inside if inside != case.labels else data / case.labels
    if not path.is_file():
        raise RecipeError("a listed case has no labels here", path=path, value=case.id, hint=_FOLDER)
    return path


def class_table(recipe: Recipe) -> NDArray[np.uint8]:
    """The network's class of every number of the label maps."""
    table = np.zeros(256, dtype=np.uint8)
    for number, structure in recipe.structures.items():
        table[number] = structure.label
    table[IGNORE] = IGNORE
    return table


def scene_cases(recipe: Recipe) -> list[Case]:
    """The recipe's made-up cases without organs, of their true size on its model grid."""
    each, spacing_mm = recipe.scenes_each, min(_spacing_mm(recipe))
    return [
        make_scene(scene, seed=n, spacing_mm=spacing_mm, weight=w / each)
        for scene, w in recipe.scenes.items()
        for n in range(each)
    ]


def _spacing_mm(recipe: Recipe) -> tuple[float, float, float]:
    if recipe.input.spacing_mm is None:
        raise RecipeError("the recipe's input needs a spacing", value=recipe.name)
    return recipe.input.spacing_mm


def phantom_cases(recipe: Recipe) -> list[Case]:
    """The recipe's synthetic patients on its model grid, all organs labelled."""
    each = recipe.phantoms_each
    return [_phantom(recipe, site, n, w / each) for site, w in recipe.phantoms.items() for n in range(1, each + 1)]


def _phantom(recipe: Recipe, site: str, index: int, weight: float) -> Case:
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
    model_grid = ModelGrid.at_spacing(made.volume.grid, axis_codes=spec.axis_codes, spacing_mm=_spacing_mm(recipe))
    image = sample(made.volume, model_grid, antialias=spec.antialias)
    # Nearest: labels are numbers. The phantom's voxels are about as large as the model's.
    nearest = [
        np.rint(link.offset + link.scale * np.arange(n)).astype(int)
        for link, n in zip(model_grid.links, model_grid.shape, strict=True)
    ]
    source = [np.zeros(0, dtype=int)] * 3
    for link, at in zip(model_grid.links, nearest, strict=True):
        source[link.source_axis] = at.clip(0, made.volume.grid.shape[link.source_axis] - 1)
    on_model = found[np.ix_(*source)].transpose([link.source_axis for link in model_grid.links])
    whole = complete(image.numpy(), np.ascontiguousarray(on_model))
    return Case(made.id, image, torch.from_numpy(class_table(recipe)[on_model]), None, torch.from_numpy(whole), weight)
