"""A trained network with everything that is needed to use it, and the run folder it comes from.

A run folder holds ``recipe.yaml`` (the recipe as it ran), ``run.json`` (data, split, machine, time), the loop's checkpoints,
log and curves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.inference.network import ReadyNetwork
from agseg.inference.predict import probabilities
from agseg.inference.segment import Settings, segment_volume
from agseg.io.atomic import make_folder, write_text
from agseg.io.os_errors import no_folder
from agseg.labels import LabelSet
from agseg.measure.surface import TOLERANCE_MM
from agseg.models.precision import Precision
from agseg.models.slice_wise import SliceWise
from agseg.training.checkpoint import BEST, LAST, Checkpoint
from agseg.training.datasets import Task, dataset_names
from agseg.training.draws import centre_crop, standardised
from agseg.training.loaders import PictureStatistics, network_of, task_of
from agseg.training.protocol import OWN
from agseg.training.recipe import Recipe, to_yaml
from agseg.training.wrappers import EveryScore, KeptLogits, favour
from agseg.volume import LabelMask, Volume
from agseg.weights.entry import Cleanup, Learned
from agseg.weights.input_spec import Carry, InputSpec

RECIPE_FILE = "recipe.yaml"
RUN_FILE = "run.json"
SOURCE = "source"
"""Key of run.json: what the network was before this training."""


SLICES_AT_A_TIME = 8
"""Depth of an inference tile for networks that see single slices."""


@dataclass(frozen=True)
class Computing:
    """How masks are computed where a network is scored, and how they are measured.

    Parameters
    ----------
    device
        Where; None is where the network lies.
    precision
        Number format; fp32 by default, which is what validation takes.
    mirror
        Test-time mirroring along the left-right axis.
    largest
        Organs of which only the largest component stays.
    tolerance_mm
        Of the surface Dice (mm).
    """

    device: torch.device | None = None
    precision: Precision = Precision.FP32
    mirror: bool = False
    largest: tuple[str, ...] = ()
    tolerance_mm: float = TOLERANCE_MM


AS_VALIDATED = Computing()
"""What validation does: fp32, where the network lies, nothing added."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network, and what its outputs mean.

    Parameters
    ----------
    network
        As the loop trained it.
    recipe
        What it was trained by.
    labels
        What its outputs mean once the dropped logits are gone; empty for frames.
    kept
        The classes whose logits count, None for all.
    statistics
        Mean and standard deviation that pictures are normalised with.
    about
        The content of run.json.
    members
        Further networks of an ensemble: scores are averaged.
    learned
        Of weights: what their entry says that they learned from; a run's run.json has it.
    """

    network: nn.Module
    recipe: Recipe
    labels: LabelSet
    kept: tuple[int, ...] | None = None
    statistics: PictureStatistics = (0.0, 1.0)
    about: Mapping[str, Any] | None = None
    members: tuple[nn.Module, ...] = ()
    learned: tuple[Learned, ...] | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether it learned from images that show no patient, in this training or in an earlier one."""
        about = self.about or {}
        return bool((about.get("data") or {}).get("synthetic") or (about.get(SOURCE) or {}).get("synthetic"))

    @property
    def inference_spec(self) -> InputSpec:
        """The input as inference tiles it: slices go through several at a time."""
        spec = self.recipe.input
        return spec if spec.tile[2] > 1 else replace(spec, tile=(spec.tile[0], spec.tile[1], SLICES_AT_A_TIME))

    @property
    def learned_on(self) -> str:
        """The name of the data set it was trained on, as the run's own cohort says it."""
        return str((self.about or {}).get("dataset", self.recipe.dataset))

    @property
    def is_own(self) -> bool:
        """Whether it was trained on data of one's own: none of the papers' protocols or figures belongs to it."""
        if self.about is None:  # weights, whose story their card tells
            return self.recipe.protocol == OWN.name
        return self.recipe.protocol == OWN.name or self.learned_on not in dataset_names()

    def ready(self, computing: Computing = AS_VALIDATED) -> ReadyNetwork:
        """A copy for inference; the network itself is left as it is, so that training can go on."""
        modules = []
        for network in (self.network, *self.members):
            module = copy.deepcopy(network)
            if self.kept is not None:
                module = KeptLogits(module, self.kept)
            slices = self.recipe.input.tile[2] == 1 and task_of(self.recipe) is Task.VOLUME
            modules.append(SliceWise(module) if slices else module)
        where = computing.device or next(self.network.parameters()).device
        spec = self.recipe.input
        return ReadyNetwork(
            modules,
            device=where,
            precision=computing.precision,
            averages_logits=spec.carry is not Carry.PROBABILITIES,
            in_channels=1 + len(spec.channels),
        )

    def segment(self, volume: Volume, ready: ReadyNetwork | None = None, *, computing: Computing = AS_VALIDATED) -> LabelMask:
        """The mask of a scan, on its own grid, by the product's prediction path."""
        settings = Settings(overlap=self.recipe.input.overlap, mirror=computing.mirror)
        network = ready or self.ready(computing)
        rules = dict.fromkeys(computing.largest, Cleanup.LARGEST_COMPONENT)
        spec, labels = self.inference_spec, self.labels
        return segment_volume(volume, network, spec=spec, labels=labels, settings=settings, cleanup=rules).mask

    @torch.inference_mode()
    def segment_picture(self, picture: NDArray[Any], ready: ReadyNetwork) -> Tensor:
        """The label of every pixel, uint8 (row, column), of a picture float32 (channel, row, column), 0 to 255.

        ``ready`` is what :meth:`ready` gives.
        """
        pixels = torch.from_numpy(picture)[None].to(ready.device)
        tile = self.recipe.input.tile[:2]
        mean, sd = self.statistics
        resized = (F.interpolate(pixels, tile, mode="bilinear", antialias=True) - mean) / sd
        scores = probabilities(ready(resized), ready)
        full = F.interpolate(scores, picture.shape[1:], mode="bilinear")
        return full.argmax(dim=1)[0].to(torch.uint8).cpu()

    @torch.inference_mode()
    def classify(self, frame: NDArray[Any]) -> Tensor:
        """Class probabilities of a frame, uint8 (row, column)."""
        device = next(self.network.parameters()).device
        image = standardised(centre_crop(torch.tensor(frame)[None].float(), self.recipe.input.tile[:2]))
        found: Tensor = self.network.eval()(image[None].to(device))
        return found[0].float().cpu()

    def bare(self) -> nn.Module:
        """The registry's own module, without the loop's wrapper."""
        return self.network.network if isinstance(self.network, EveryScore) else self.network


def write_run(folder: Path, recipe: Recipe, about: Mapping[str, Any]) -> None:
    """Write ``recipe.yaml`` and ``run.json``."""
    make_folder(folder)
    write_text(folder / RECIPE_FILE, to_yaml(recipe))
    write_text(folder / RUN_FILE, json.dumps(about, indent=2) + "\n")


def open_run(folder: Path, *, best: bool = True) -> TrainedModel:
    """The network of a run folder: the checkpoint with the best validation score, or the last one.

    Raises
    ------
    RecipeError
        If the folder holds no finished run.
    """
    if not (folder / RECIPE_FILE).exists():
        raise RecipeError(
            no_folder(folder) or "no run here",
            path=folder,
            expected=RECIPE_FILE,
            hint="Train one with: agseg train RECIPE --data DIR",
        )
    recipe = load(folder / RECIPE_FILE, Recipe)
    about = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    chosen = folder / BEST if best and (folder / BEST).exists() else folder / LAST
    state = Checkpoint.read(chosen)
    network = network_of(recipe)
    network.load_state_dict(state.network if state.averaged is None else state.averaged)
    favour(network, recipe.wins_from)
    kept = None if about["kept"] is None else tuple(about["kept"])
    labels = LabelSet.from_mapping({int(index): name for index, name in about["labels"].items()})
    mean, sd = about["statistics"]
    return TrainedModel(network.eval(), recipe, labels, kept, (mean, sd), {**about, "step": state.step})
