"""A trained run as weights that ``agseg segment`` takes: safetensors, a model card, and a ready manifest entry."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from agseg.errors import RecipeError
from agseg.io.atomic import TEMPORARY_SUFFIX, flush, make_folder, output_error, replacing, write_text
from agseg.measure.significance import summarise
from agseg.models.registry import build
from agseg.training.cohort import Provenance
from agseg.training.datasets import Task, dataset
from agseg.training.evaluation import Evaluation
from agseg.training.material import task_of
from agseg.training.table import make_table, to_markdown
from agseg.training.trained import Trained
from agseg.training.wrappers import fold_kept
from agseg.weights.digest import Digest
from agseg.weights.entry import WEIGHTS_ID, InputSpec
from agseg.weights.manifest import MANIFEST_SCHEMA, Manifest

__all__ = ["ExportReport", "export_run"]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and the command that uses it."""

    id: str
    weights: Path
    card: Path
    manifest: Path
    sha256: str
    command: str

    def to_dict(self) -> dict[str, str]:
        """For ``--json``."""
        return {name: str(value) for name, value in vars(self).items()}


def export_run(
    trained: Trained, *, weights_id: str, output: Path, evaluation: Evaluation | None = None, overwrite: bool = False
) -> ExportReport:
    """Write ``<id>.safetensors``, ``<id>.md`` and ``<id>.manifest.yaml`` into a folder: all three, or nothing.

    A fine-tuned network with dropped logits is folded to its kept classes first; the scores are the same to rounding.

    Parameters
    ----------
    trained
        The run.
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
        If the run is not a CT segmentation in three dimensions or a frame classifier, which is what the commands can use; if
        the name is none or is taken; or if the folder has one of the files.
    """
    from safetensors.torch import save_file

    task, recipe = _usable(trained), trained.recipe
    files = _free_names(weights_id, output, overwrite=overwrite)
    network, config = trained.bare(), dict(recipe.network.config)
    if trained.kept is not None:
        config["classes"] = len(trained.kept)
        network = fold_kept(network, trained.kept, build(recipe.network.architecture, config))
    with _together(output) as staging:
        weights, card, manifest = (staging / file.name for file in files)
        with replacing(weights) as temporary:
            save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, temporary)
        digest = Digest.of(weights)
        entry = _entry(trained, config, weights, digest, {} if evaluation is None else _scores(evaluation))
        content = {"schema": MANIFEST_SCHEMA, "entries": {weights_id: entry}}
        write_text(card, _card(trained, weights_id, digest, evaluation))
        write_text(manifest, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
        Manifest.load(manifest).entry(weights_id)  # what does not read back is not ready
    weights, card, manifest = files
    verb = "classify-us CLIP" if task is Task.FRAME else "segment STUDIES"
    command = f"agseg {verb} --manifest {manifest} --weights {weights_id}"
    return ExportReport(weights_id, weights, card, manifest, digest.sha256, command)


def _usable(trained: Trained) -> Task:
    """What the run does, if a command of agseg can use it."""
    task, recipe = task_of(trained.recipe), trained.recipe
    if task is not Task.FRAME and (task is not Task.VOLUME or recipe.input.tile[2] == 1 or recipe.input.modality != "CT"):
        raise RecipeError(
            "no agseg command can run these weights", value=recipe.name, expected="a 3D network for CT, or a frame classifier"
        )
    return task


def _free_names(weights_id: str, output: Path, *, overwrite: bool) -> tuple[Path, Path, Path]:
    """Weights, card and manifest of a name that nothing else has."""
    if not WEIGHTS_ID.fullmatch(weights_id):
        raise RecipeError("not a name for weights", value=weights_id, expected="lower-case letters, digits, dots and hyphens")
    if weights_id in Manifest.load().by_id:
        raise RecipeError("that id is taken by agseg's own manifest", value=weights_id, hint="Choose another name with --as.")
    weights, card, manifest = (output / f"{weights_id}.{suffix}" for suffix in ("safetensors", "md", "manifest.yaml"))
    for file in (weights, card, manifest):
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


_DATA = {
    False: "trained on {title}",
    True: "trained on SYNTHETIC phantoms in place of {title}; no patient was seen, it must not be used on any",
}
"""Whether the training images were synthetic, and what an entry then says of them."""


def _provenance(trained: Trained) -> Provenance:
    """Where the training images came from, as the run recorded it."""
    return Provenance(**dict((trained.about or {}).get("data", {})))


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
    trained: Trained, config: Mapping[str, Any], weights: Path, digest: Digest, scores: dict[str, Any]
) -> dict[str, Any]:
    facts, came = dataset(trained.recipe.dataset), _provenance(trained)
    meaning: dict[str, Any]
    if task_of(trained.recipe) is Task.FRAME:
        meaning = {"classes": list(facts.labels.values())}
    else:
        meaning = {"labels": {label.index: label.name for label in trained.labels}}
    return {
        "architecture": trained.recipe.network.architecture,
        "config": dict(config),
        "format": "safetensors",
        "files": [{"filename": weights.name, "local": weights.name, "sha256": digest.sha256, "size_bytes": digest.size_bytes}],
        "input": _input(trained.recipe.input),
        **meaning,
        "licence": f"follows the training data: {came.licence or 'not stated'}",
        "citation": came.reference or "not stated",
        "attribution": _DATA[came.synthetic].format(title=facts.title),
        "intended_use": "Research. Not for clinical decisions without review by a qualified person.",
        "scores": scores,
        **({"caution": _DATA[True].format(title=facts.title)} if came.synthetic else {}),
    }


def _input(spec: InputSpec) -> dict[str, Any]:
    """An InputSpec as the manifest holds it; what is unset, or at a default that came later, stays out."""
    given = {key: value for key, value in spec.identity().items() if value is not None}
    return {
        key: list(value) if isinstance(value, tuple) else value.value if isinstance(value, Enum) else value
        for key, value in given.items()
    }


def _card(trained: Trained, weights_id: str, digest: Digest, evaluation: Evaluation | None) -> str:
    """The model card: data, split, steps, time, machine, scores with intervals."""
    about, recipe = dict(trained.about or {}), trained.recipe
    facts, came = dataset(recipe.dataset), _provenance(trained)
    cases = about.get("cases", {})
    sides = ", ".join(f"{count} {side}" for side, count in cases.items())
    lines = [
        f"# {weights_id}",
        "",
        "Not for clinical decisions without review by a qualified person.",
        "",
        "| | |",
        "|---|---|",
        f"| recipe | {recipe.name}: {recipe.title} |",
        f"| network | {recipe.network.architecture}, {about.get('parameters', '?'):,} parameters as trained |",
        f"| data | {_DATA[came.synthetic].format(title=facts.title)}; {came.licence or 'licence not stated'} |",
        f"| split | {recipe.split}, fold {about.get('fold', 0)}: {sides} |",
        f"| steps | {about.get('step')} of {recipe.loop.steps}, batches of {recipe.batch}, seed {recipe.loop.seed} |",
        f"| time | {float(about.get('seconds', 0)) / 60:.1f} minutes on {about.get('machine', '?')} |",
        f"| organs | {', '.join(trained.labels.names) or ', '.join(facts.labels.values())} |",
        f"| SHA-256 | {digest.sha256} |",
        "",
    ]
    if evaluation is None:
        lines.append("No scores: the run was exported without an evaluation.")
    else:
        lines += [f"Scores on {evaluation.dataset}:", "", to_markdown(make_table([evaluation]))]
    return "\n".join(lines) + "\n"
