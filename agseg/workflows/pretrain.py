"""Train a packaged network from the open scans: recipe and data folder in, weights file and manifest fields out."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.inference.allocator import keep_freed_memory
from agseg.inference.normalise import normalise
from agseg.io.resources import resource_path
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.training.batches import DrawBatches
from agseg.training.checkpoint import LAST
from agseg.training.history import Progress
from agseg.training.loop import Batch, train
from agseg.training.open_cases import PretrainRecipe, phantom_cases, read_cases, scene_cases
from agseg.training.partial_loss import partial_dice_cross_entropy
from agseg.training.sampler import PatchSampler
from agseg.training.synthesis import Tissue

__all__ = ["BUILD", "NETWORK_FILE", "OPEN_SCANS", "Pretrained", "export_network", "favour", "in_order", "pretrain"]

_log = logging.getLogger(__name__)

OPEN_SCANS = Path("..") / "shared" / "data"
"""Where ``make weights`` looks for the open scans, seen from the checkout."""

BUILD = Path("build") / "weights"
"""Where ``make weights`` works."""

NETWORK_FILE = "network.safetensors"
"""What :func:`pretrain` leaves beside the checkpoints."""


@dataclass(frozen=True)
class Pretrained:
    """A finished file: where it is, its digest and size as the manifest states them, and the steps it took."""

    path: Path
    sha256: str
    size_bytes: int
    step: int
    loss: float


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
        stop_after=recipe.stop_after,
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
    for recipe_path in in_order(resource_path("train/packaged")):
        folder = BUILD / recipe_path.stem
        before = load(recipe_path, PretrainRecipe).start_from
        done = pretrain(
            recipe_path,
            data=OPEN_SCANS,
            folder=folder,
            start_from=None if before is None else BUILD / before / NETWORK_FILE,
            resume=(folder / LAST).exists(),
            progress=_log_progress,
        )
        _log.info("%s: %s bytes, sha256 %s, %s steps", done.path, done.size_bytes, done.sha256, done.step)


def in_order(folder: Path) -> list[Path]:
    """The recipes of a folder, each after the one it goes on from.

    Raises
    ------
    RecipeError
        If a recipe goes on from one that is not there, or from itself by a detour.
    """
    waiting = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    before = {name: load(path, PretrainRecipe).start_from for name, path in waiting.items()}
    done: list[Path] = []
    while waiting:
        ready = [name for name in waiting if before[name] is None or before[name] in {path.stem for path in done}]
        if not ready:
            raise RecipeError("recipes go on from each other or from one that is not there", path=folder, value=sorted(waiting))
        done += [waiting.pop(name) for name in ready]
    return done


def _log_progress(news: Progress) -> None:
    _log.info("step %s of %s, loss %.3f, %.2f s per step", news.step, news.steps, news.loss, news.seconds_per_step)


if __name__ == "__main__":
    main()
