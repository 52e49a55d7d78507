"""Train a packaged network from the open scans: recipe and data folder in, weights file and manifest fields out."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.inference.allocator import keep_freed_memory
from agseg.inference.frame import Frame
from agseg.inference.normalise import normalise
from agseg.inference.prepare import sample
from agseg.io.discover import discover
from agseg.io.nifti import read_labels
from agseg.io.read import read_volume
from agseg.io.resources import resource_path
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.training.anatomy import OUTSIDE, complete, structures_on
from agseg.training.batches import DrawBatches
from agseg.training.cases import AIR_HU, IGNORE, Case
from agseg.training.checkpoint import LAST
from agseg.training.drawing import FIRST_SHELL, enclose
from agseg.training.loop import Batch, Progress, train
from agseg.training.negatives import Scene, make_scene
from agseg.training.partial_loss import partial_dice_cross_entropy
from agseg.training.phantom import make_case
from agseg.training.recipe import NetworkChoice
from agseg.training.sampler import PatchSampler, PatchSettings
from agseg.training.settings import LoopSettings
from agseg.training.synthesis import Tissue
from agseg.weights.entry import InputSpec

__all__ = [
    "OpenCase",
    "PretrainRecipe",
    "Pretrained",
    "Structure",
    "export_network",
    "phantom_cases",
    "pretrain",
    "read_cases",
    "scene_cases",
]

_log = logging.getLogger(__name__)

OPEN_SCANS = Path("..") / "shared" / "data"
"""Where ``make weights`` looks for the open scans, seen from the checkout."""

PHANTOM_COARSEN = 1.5
"""Voxel spacing of the synthetic patients, as a multiple of their site's: about that of the model grid."""

KIDNEY_RIGHT, KIDNEY_LEFT = 2, 3
PHANTOM_STRUCTURES = {"spleen": 1, "kidney": KIDNEY_LEFT, "liver": 5, "pancreas": 7}
"""Organs of the phantoms and their numbers in the label maps; kidneys are told apart by their side."""

NETWORK_FILE = "network.safetensors"
"""What :func:`pretrain` leaves beside the checkpoints."""


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
    """

    id: str
    labels: str
    image: str | None = None
    weight: float = 1.0
    known: tuple[int, ...] | None = None


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

    def __post_init__(self) -> None:
        for label, probability in self.wins_from.items():
            if label not in self.labels or not 0 < probability < 1:
                raise RecipeError("wins_from needs a label and a probability", value={label: probability}, expected="0 < p < 1")


@dataclass(frozen=True)
class Pretrained:
    """A finished file: where it is, its digest and size as the manifest states them, and the steps it took."""

    path: Path
    sha256: str
    size_bytes: int
    step: int
    loss: float


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
    inside = case.labels.removeprefix("train:")
    path = resource_path("train") / inside if inside != case.labels else data / case.labels
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
    labels = torch.from_numpy(_classes(recipe)[found])
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
    labels = torch.from_numpy(_classes(recipe)[found])
    return Case(case.id, image, labels, case.known, whole, case.weight, drawn=True)


def _classes(recipe: PretrainRecipe) -> NDArray[np.uint8]:
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
    return Case(made.id, image, torch.from_numpy(_classes(recipe)[on_model]), None, torch.from_numpy(whole), weight)


def pretrain(
    recipe_path: Path,
    *,
    data: Path,
    folder: Path,
    start_from: Path | None = None,
    only: tuple[str, ...] = (),
    resume: bool = False,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Pretrained:
    """Train, and write ``network.safetensors`` (fp16) into ``folder``.

    Parameters
    ----------
    data
        The folder of open scans.
    start_from
        Weights to start from in place of a random network.
    only
        Train on these cases alone: how a scan is left out to measure on it.
    """
    recipe = load(recipe_path, PretrainRecipe)
    torch.manual_seed(recipe.loop.seed)
    network = build(recipe.network.architecture, recipe.network.config)
    if start_from is not None:
        load_strict(network, start_from)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    cases = [*read_cases(recipe, data, only=only), *scene_cases(recipe), *phantom_cases(recipe)]
    tissues: Mapping[int, Tissue] = {number: structure.tissue for number, structure in recipe.structures.items()}
    sampler = PatchSampler(cases, recipe.patches, seed=recipe.loop.seed, tissues=tissues)

    def normalised(batch: Batch, generator: torch.Generator) -> Batch:
        image = normalise(batch.image.clone(), recipe.input)
        return Batch(image.contiguous(memory_format=torch.channels_last_3d), batch.target, batch.known)

    result = train(
        network,
        source=DrawBatches(sampler, size=1, workers=workers),
        loss=lambda logits, batch: partial_dice_cross_entropy(logits, batch.target, known=batch.known),
        settings=recipe.loop,
        folder=folder,
        transform=normalised,
        progress=progress,
        resume=resume,
        fingerprint=f"{recipe.name}:{','.join(case.id for case in cases)}",
    )
    favour(result.network, recipe.wins_from)
    return export_network(result.network, folder / NETWORK_FILE, step=result.step, loss=result.loss)


def favour(network: nn.Module, wins_from: Mapping[int, float]) -> None:
    """Let classes win from less (or more) than even odds: the bias of the layer ``head`` rises by log((1 - p) / p), in place.

    The expected Dice of an organ is largest where everything above half of that Dice is taken (Lipton et al., 2014), so an
    organ that is found with Dice 0.5 should win from 0.25 on.

    Raises
    ------
    RecipeError
        If the network has no single last layer.
    """
    if not wins_from:
        return
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Conv3d) or head.bias is None:
        raise RecipeError("wins_from needs a network with one last layer", value=type(network).__name__)
    with torch.no_grad():
        for label, probability in wins_from.items():
            head.bias[label] += math.log((1 - probability) / probability)


def export_network(network: nn.Module, path: Path, *, step: int, loss: float) -> Pretrained:
    """The network's tensors as a safetensors file, floating point as fp16."""
    tensors = {
        key: (value.half() if value.dtype.is_floating_point else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    save_file(tensors, path)
    content = path.read_bytes()
    return Pretrained(path, hashlib.sha256(content).hexdigest(), len(content), step, loss)


def main() -> None:
    """``make weights``: train every packaged network from the open scans beside the checkout, into ``build/weights``.

    Resumes what an earlier call left. Progress goes to the log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    for recipe_path in sorted(resource_path("train/packaged").glob("*.yaml")):
        folder = Path("build") / "weights" / recipe_path.stem
        done = pretrain(recipe_path, data=OPEN_SCANS, folder=folder, resume=(folder / LAST).exists(), progress=_log_progress)
        _log.info("%s: %s bytes, sha256 %s, %s steps", done.path, done.size_bytes, done.sha256, done.step)


def _log_progress(news: Progress) -> None:
    _log.info("step %s of %s, loss %.3f, %.2f s per step", news.step, news.steps, news.loss, news.seconds_per_step)


if __name__ == "__main__":
    main()
