"""A trained run as weights that ``agseg segment`` takes: safetensors, a model card, and a ready manifest entry."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from agseg.errors import RecipeError
from agseg.io.atomic import TEMPORARY_SUFFIX, flush, make_folder, output_error, replacing, write_text
from agseg.measure.significance import summarise
from agseg.models.registry import build
from agseg.training.datasets import Task, dataset
from agseg.training.evaluation import Evaluation
from agseg.training.leakage import learned_by
from agseg.training.loaders import task_of
from agseg.training.recipe import plain
from agseg.training.trained_model import TrainedModel
from agseg.training.wrappers import fold_kept
from agseg.weights.digest import Digest
from agseg.weights.entry import WEIGHTS_ID
from agseg.weights.input_spec import InputSpec
from agseg.weights.manifest import MANIFEST_SCHEMA, Manifest
from agseg.workflows.model_card import WORDS, model_card, provenance_of, title_of


@dataclass(frozen=True)
class ExportReport:
    """What was written, and the command that uses it."""

    id: str
    weights: Path
    card: Path
    manifest: Path
    sha256: str
    command: str
    files: tuple[Path, ...] = ()
    """Every weights file: several for an ensemble."""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        told = {name: str(value) for name, value in vars(self).items() if name != "files"}
        return {**told, "files": [str(file) for file in self.files]}


def export_run(
    trained: TrainedModel | Sequence[TrainedModel],
    *,
    weights_id: str,
    output: Path,
    evaluation: Evaluation | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write ``<id>.safetensors``, ``<id>.md`` and ``<id>.manifest.yaml`` into a folder: all of them, or nothing.

    Several runs become one entry with a file each (``<id>-fold-0.safetensors``, ...), whose scores are averaged. A
    fine-tuned network with dropped logits is folded to its kept classes first; the scores are the same to rounding.

    Parameters
    ----------
    trained
        The run, or runs of one recipe on several folds.
    weights_id
        Lower-case name of the entry.
    output
        The folder; the manifest entry names the weights file beside it.
    evaluation
        Scores for the card and the entry.
    overwrite
        Replace an earlier export of this name.

    Raises
    ------
    RecipeError
        If the run learned from pictures, for which there is no command; if the runs do not belong together; if the name is none
        or is taken; or if the folder has one of the files.
    """
    from safetensors.torch import save_file

    members = (trained,) if isinstance(trained, TrainedModel) else tuple(trained)
    task = _usable(members)
    weights, card, manifest = _free_names(weights_id, output, _suffixes(members), overwrite=overwrite)
    with _together(output) as staging:
        digests = {}
        for member, file in zip(members, weights, strict=True):
            network, config = _exported(member)
            with replacing(staging / file.name) as temporary:
                save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, temporary)
            digests[file.name] = Digest.of(staging / file.name)
        entry = _entry(members, config, digests, {} if evaluation is None else _scores(evaluation))
        content = {"schema": MANIFEST_SCHEMA, "entries": {weights_id: entry}}
        write_text(staging / card.name, model_card(members, weights_id, digests, evaluation))
        write_text(staging / manifest.name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
        made = Manifest.load(staging / manifest.name).entry(weights_id)  # what does not read back is not ready
    verb = "classify-us CLIP" if task is Task.FRAME else "segment STUDIES"
    command = f"agseg {verb} --manifest {manifest} --weights {weights_id}"
    sha256 = made.files[0].sha256 if len(members) == 1 else made.sha256
    return ExportReport(weights_id, weights[0], card, manifest, str(sha256), command, weights)


def _suffixes(members: Sequence[TrainedModel]) -> list[str]:
    """What stands behind the entry's name in the names of its files."""
    if len(members) == 1:
        return [""]
    return [f"-fold-{(member.about or {}).get('fold', number)}" for number, member in enumerate(members)]


def _exported(trained: TrainedModel) -> tuple[nn.Module, dict[str, Any]]:
    """The network as it is used, and its configuration: folded to the classes that count."""
    network, config = trained.bare(), dict(trained.recipe.network.config)
    if trained.kept is None:
        return network, config
    config["classes"] = len(trained.kept)
    return fold_kept(network, trained.kept, build(trained.recipe.network.architecture, config)), config


def _usable(members: Sequence[TrainedModel]) -> Task:
    """What the runs do, if a command of agseg can use them, and if they belong together."""
    first = members[0]
    task, recipe = task_of(first.recipe), first.recipe
    if task is Task.PICTURE:
        raise RecipeError(
            "a network of pictures is not exported: no agseg command takes new pictures, which have no grid in mm",
            value=recipe.name,
            expected="a network for scans, or a frame classifier",
            hint="agseg evaluate --run RUN --masks scores it, and writes what it finds in the pictures of the test side.",
        )
    folds = [(member.about or {}).get("fold") for member in members]
    if len(members) > 1 and (task is Task.FRAME or len(set(folds)) < len(folds)):
        raise RecipeError("an ensemble is made of different folds of a segmentation", value=f"folds {folds}")
    for member in members[1:]:
        mine, theirs = _same_for_all(first), _same_for_all(member)
        if differing := [key for key in mine if mine[key] != theirs[key]]:
            raise RecipeError(
                "these runs do not belong together",
                value=f"{differing[0]}: {theirs[differing[0]]}",
                expected=f"{differing[0]}: {mine[differing[0]]}",
            )
    return task


def _same_for_all(trained: TrainedModel) -> dict[str, object]:
    """What the members of an ensemble must have in common."""
    recipe = trained.recipe
    return {
        "data": trained.learned_on,
        "network": (recipe.network.architecture, recipe.network.config),
        "labels": trained.labels.names,
        "input": recipe.input.identity(),
    }


def _free_names(
    weights_id: str, output: Path, suffixes: Sequence[str], *, overwrite: bool
) -> tuple[tuple[Path, ...], Path, Path]:
    """Weights, card and manifest of a name that nothing else has."""
    if not WEIGHTS_ID.fullmatch(weights_id):
        raise RecipeError("not a name for weights", value=weights_id, expected="lower-case letters, digits, dots and hyphens")
    if weights_id in Manifest.load().by_id:
        raise RecipeError("that id is taken by agseg's own manifest", value=weights_id, hint="Choose another name with --as.")
    weights = tuple(output / f"{weights_id}{suffix}.safetensors" for suffix in suffixes)
    card, manifest = (output / f"{weights_id}.{suffix}" for suffix in ("md", "manifest.yaml"))
    for file in (*weights, card, manifest):
        if not overwrite and os.path.lexists(file):
            raise RecipeError(
                "an earlier export, or another file, stands here",
                path=file,
                hint="Give another name with --as, another folder with -o, or --overwrite.",
            )
    return weights, card, manifest


@contextmanager
def _together(output: Path) -> Iterator[Path]:
    """A hidden folder in ``output`` whose files take their places when all of them are written; else all is as it was."""
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    make_folder(output)
    staging, former = (output / f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}" for _ in range(2))
    placed: list[Path] = []
    try:
        yield make_folder(staging)
        # The manifest goes first and comes last: what it names is there.
        files = sorted(staging.iterdir(), key=lambda file: file.suffix == ".yaml")
        make_folder(former)
        for place in (output / file.name for file in reversed(files)):
            if place.is_symlink() or place.is_file():  # a folder is nobody's export: nothing takes its place
                place.replace(former / place.name)
        for file in files:
            placed.append(file.replace(output / file.name))
        staging.rmdir()
        flush(output)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        lost = not _put_back(former, placed)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            failed = output_error(error, "the weights cannot be put into place", path=output)
            failed.hint = f"The earlier export's files are in {former}." if lost else failed.hint
            raise failed from error
        raise
    shutil.rmtree(former, ignore_errors=True)


def _put_back(former: Path, placed: Sequence[Path]) -> bool:
    """Take away what has been placed and give its former files back to a folder; whether all of them are there again."""
    for file in placed:
        with suppress(OSError):
            file.unlink(missing_ok=True)
    if not former.exists():
        return True
    # The manifest last, as ever.
    for file in sorted(former.iterdir(), key=lambda file: file.suffix == ".yaml"):
        with suppress(OSError):
            file.replace(former.parent / file.name)
    with suppress(OSError):
        former.rmdir()
    return not former.exists()


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    """Mean, interval and n per organ and metric."""
    found: dict[str, Any] = {"dataset": evaluation.dataset, "protocol": evaluation.protocol}
    for organ in evaluation.organs:
        for metric in ("dice", "precision", "recall", "s2s_mm"):
            s = summarise(list(evaluation.values(organ, metric).values()))
            if s.n:
                interval = [round(s.interval.low, 4), round(s.interval.high, 4)] if s.n > 1 else None
                found.setdefault(organ, {})[metric] = {"mean": round(s.mean, 4), "interval95": interval, "n": s.n}
    return found


def _entry(
    members: Sequence[TrainedModel], config: Mapping[str, Any], digests: Mapping[str, Digest], scores: dict[str, Any]
) -> dict[str, Any]:
    trained = members[0]
    title, came = title_of(trained), provenance_of(trained)
    meaning: dict[str, Any]
    if task_of(trained.recipe) is Task.FRAME:
        meaning = {"classes": list(dataset(trained.recipe.dataset).labels.values())}
    else:
        meaning = {"labels": {label.index: label.name for label in trained.labels}}
    return {
        "architecture": trained.recipe.network.architecture,
        "config": dict(config),
        "format": "safetensors",
        "files": [
            {"filename": name, "local": name, "sha256": digest.sha256, "size_bytes": digest.size_bytes}
            for name, digest in digests.items()
        ],
        "input": _input(trained.recipe.input),
        **meaning,
        "licence": f"follows the training data: {came.licence or 'not stated'}",
        "citation": came.reference or "not stated",
        "attribution": WORDS[came.synthetic].format(title=title),
        "intended_use": "Research. Not for clinical decisions without review by a qualified person.",
        "scores": scores,
        **_learned(members),
        **({"caution": WORDS[True].format(title=title)} if came.synthetic else {}),
    }


def _learned(members: Sequence[TrainedModel]) -> dict[str, Any]:
    """What the runs learned from, as the manifest holds it."""
    learned = learned_by(members)
    return {} if learned is None else {"learned": [vars(one) for one in learned]}


def _input(spec: InputSpec) -> dict[str, Any]:
    """An InputSpec as the manifest holds it; what is unset, or at a default that came later, stays out."""
    given = plain({key: value for key, value in spec.identity().items() if value is not None})
    if "channels" in given:
        given["channels"] = [{k: v for k, v in channel.items() if v is not None} for channel in given["channels"]]
    return dict(given)
