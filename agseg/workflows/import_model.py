"""``agseg weights import FOLDER|ZIP --as ID``: a trained nnU-Net v2 model becomes an entry of this site's own manifest.

folder or ZIP -> models -> checkpoints -> plan -> network (does it fit?) -> safetensors per fold -> entry with digests

Everything is made and checked in a folder of its own; only then does it take its name. What is refused leaves nothing behind.
"""

from __future__ import annotations

import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agseg.binding import bind_node
from agseg.errors import UsageError, WeightsError
from agseg.io.atomic import make_folder, write_text
from agseg.weights.digest import Digest
from agseg.weights.entry import WEIGHTS_ID, WeightsEntry
from agseg.weights.input_spec import AXIS_CODES, VOLUMETRIC
from agseg.weights.manifest import MANIFEST_SCHEMA, Manifest
from agseg.weights.nnunet.archive import unpacked
from agseg.weights.nnunet.folder import ModelFolder, Parts, find_models, read_parts
from agseg.weights.nnunet.plan import Plan, read_plan
from agseg.weights.site import imported_folder, site_manifest
from agseg.yaml_nodes import read

if TYPE_CHECKING:
    from agseg.weights.nnunet.checkpoint import Checkpoint

STORED = "stored"
"""The orientation of scans that are given to the network as their files hold them."""

EMISSION = ("PT", "PET", "SUV", "NM", "SPECT")
"""How channels of PET and SPECT are named: their values are neither HU nor the signal of an MR."""

CITATION = "Isensee et al., nnU-Net, Nature Methods 18 (2021), and the publication of this model."
INTENDED_USE = "Research. Imported by this site from a model folder of nnU-Net v2; see the model's own documentation."


@dataclass(frozen=True)
class ImportRequest:
    """One import, as it was asked for.

    Parameters
    ----------
    source
        A folder, or a ZIP of one.
    as_id
        The new entry's name.
    home
        Folder of the weights cache and of the site's entries.
    orientation
        What training scans were turned to: axis codes such as ``RAS``, or ``stored``. None where the plan says it.
    modality
        Of its training scans, ``"CT"`` or ``"MR"``; None goes by the plan and the channel's name.
    folds
        Which folds; empty means all that are there.
    licence
        The model's licence for records; by default what ``dataset.json`` says.
    organ_names
        A YAML mapping from the data set's names to agseg's.
    citation, input, crop_to
        What a publisher's list says of a model: its publication, keys of the entry's input that override the plan's, and the
        organs that its program crops to.
    """

    source: Path
    as_id: str
    home: Path
    orientation: str | None = None
    modality: str | None = None
    folds: tuple[str, ...] = ()
    licence: str | None = None
    organ_names: Path | None = None
    citation: str = CITATION
    input: Mapping[str, Any] = field(default_factory=dict)
    crop_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not WEIGHTS_ID.fullmatch(self.as_id):
            raise UsageError("not an id", value=self.as_id, expected="a-z, 0-9, . and -", hint="Name it: --as ID")
        if self.as_id in Manifest.load().by_id:
            raise UsageError("agseg's own manifest has weights of this name", value=self.as_id, expected="another --as ID")
        if self.orientation is not None and self.orientation != STORED and self.orientation not in AXIS_CODES:
            raise UsageError("not an orientation", value=self.orientation, expected="stored, RAS, LPS, ...")
        if self.modality is not None and self.modality not in VOLUMETRIC:
            raise UsageError("not a modality of scans", value=self.modality, expected=" or ".join(VOLUMETRIC))
        if bad := [fold for fold in self.folds if not re.fullmatch(r"\d+|all", fold)]:
            raise UsageError("not a fold", value=bad[0], expected="numbers, or all", hint="For example --folds 0,1")
        if not self.source.exists():
            raise UsageError("no such folder or file", path=self.source)


def is_model(path: Path) -> bool:
    """Whether this is a folder, or a ZIP by its name or with a model's plans in it: weights files of PyTorch are ZIPs too."""
    if path.is_dir() or path.suffix.casefold() == ".zip":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[-1] == "plans.json" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def import_model(request: ImportRequest) -> WeightsEntry:
    """Import a model, or several as one; returns its entry as the site's manifest now holds it.

    Raises
    ------
    UsageError
        If the request does not fit the model; nothing is written.
    WeightsError
        If the model is damaged, hostile or not supported; nothing is written.
    OutputError
        If the cache cannot be written.
    """
    scratch = request.home / "weights" / "partial"
    with nullcontext(request.source) if request.source.is_dir() else unpacked(request.source, scratch=scratch) as root:
        names = _organ_names(request.organ_names)
        with _staging(request) as folder:
            listed = read_parts(root)
            if listed is None:
                entry = _single(_only(find_models(root), root), request, names, folder)
            else:
                entry = _composite(*listed, request, names, folder)
            return register(entry, request, folder)


def _only(models: tuple[ModelFolder, ...], root: Path) -> ModelFolder:
    if len(models) == 1:
        return models[0]
    raise UsageError(
        "several models are here",
        value=", ".join(str(model.path.relative_to(root)) for model in models),
        expected="one",
        hint="Import one of these folders, or write a parts.yaml that makes them one entry (docs/nnunet.md).",
    )


@contextmanager
def _staging(request: ImportRequest) -> Iterator[Path]:
    """A folder for the entry's files; it stays only if it took its name."""
    folder = make_folder(imported_folder(request.home)) / f"{request.as_id}-{secrets.token_hex(4)}"
    try:
        yield make_folder(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent, request.home):
            with suppress(OSError):  # not empty: others' files
                parent.rmdir()
        raise


def _single(model: ModelFolder, request: ImportRequest, names: Mapping[str, str], folder: Path) -> dict[str, Any]:
    made = _Made.of(model, request, names, folder, prefix="")
    largest = [[made.plan.labels[n] for n in numbers if n in made.plan.labels] for numbers in model.largest_of()]
    return {
        **made.network(),
        "files": made.files,
        "labels": made.plan.labels,
        **({"largest_of": largest} if largest else {}),
        **_story((made,), request),
    }


def _composite(
    folder_of_parts: Path, parts: Parts, request: ImportRequest, names: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    made, described = [], []
    for number, part in enumerate(parts.parts, start=1):
        model = _only(find_models(folder_of_parts / part.model), folder_of_parts)
        found = _Made.of(model, request, names, folder, prefix=f"part{number}-")
        if strangers := sorted(set(part.labels) - set(found.plan.labels)):
            raise WeightsError(
                f"parts.yaml names a label that {part.model} does not have",
                value=strangers[0],
                expected=f"one of {', '.join(map(str, found.plan.labels))}",
            )
        if model.largest_of():
            raise WeightsError("parts with post-processing are not supported", path=model.path)
        made.append(found)
        files = [file["filename"] for file in found.files]
        described.append({"files": files, "labels": part.labels, **found.network()})
    return {
        **made[0].network(),
        "files": [file for found in made for file in found.files],
        "labels": parts.labels,
        "parts": described,
        **_story(tuple(made), request),
    }


@dataclass(frozen=True)
class _Made:
    """One model, read, found fit, and written as safetensors."""

    plan: Plan
    input: dict[str, Any]
    files: list[dict[str, Any]]
    trainer: str
    described: Mapping[str, Any]

    @classmethod
    def of(cls, model: ModelFolder, request: ImportRequest, names: Mapping[str, str], folder: Path, *, prefix: str) -> _Made:
        from agseg.models.load import load_strict
        from agseg.models.registry import build
        from agseg.weights.nnunet.checkpoint import read_checkpoint
        from agseg.weights.nnunet.facts import Facts

        plan: Plan | None = None
        files, first = [], None
        for fold, path in model.chosen(request.folds).items():
            checkpoint = read_checkpoint(path)
            if first is None:
                first = checkpoint
                plan = read_plan(model.path, checkpoint.configuration, names=names)
                if checkpoint.has_batch_norm:
                    plan.config["norm"] = "batch"
            if plan is None or checkpoint.configuration != plan.configuration:
                raise WeightsError("the folds are of different configurations", path=path, value=checkpoint.configuration)
            try:
                load_strict(build(plan.architecture, plan.config), checkpoint.state)
            except (WeightsError, UsageError) as problem:
                raise WeightsError(
                    f"the tensors of trainer {checkpoint.trainer} do not fit the network of its plan: {problem.message}",
                    path=path,
                    hint="Trainers with a network of their own are not supported.",
                ) from problem
            files.append(_written(checkpoint, folder / f"{prefix}fold_{fold}.safetensors"))
        assert plan is not None  # a model folder has at least one fold
        assert first is not None
        described = Facts.read(model.path / "dataset.json").content
        return cls(plan, _input(plan, request, first.mirror_axes), files, first.trainer, described)

    def network(self) -> dict[str, Any]:
        """The keys of an entry, or of a part of it, that say what is computed."""
        return {"architecture": self.plan.architecture, "config": self.plan.config, "input": self.input}


def _written(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """Write a fold as safetensors, and describe it as a manifest does."""
    from safetensors.torch import save_file

    facts = {"trainer": checkpoint.trainer, "configuration": checkpoint.configuration, "epoch": str(checkpoint.epoch)}
    save_file({key: tensor.contiguous().clone() for key, tensor in checkpoint.state.items()}, path, metadata=facts)
    digest = Digest.of(path)
    return {"filename": path.name, "sha256": digest.sha256, "size_bytes": digest.size_bytes}


def _input(plan: Plan, request: ImportRequest, mirror_axes: tuple[int, ...]) -> dict[str, Any]:
    wanted, said = request.orientation, plan.orientation
    if said is not None and wanted not in (None, said):
        raise UsageError("the plan's reader turns scans itself", value=f"--orientation {wanted}", expected=said)
    if said is None and wanted is None:
        raise UsageError(
            "the plan does not say how training scans were oriented: nnU-Net takes voxels as files hold them",
            expected="--orientation",
            hint="RAS (TotalSegmentator, MOOSE), LPS (MRSegmentator), or stored: what nnUNetv2_predict makes of a file.",
        )
    orientation = said or wanted
    assert orientation is not None  # one of them is
    shift = 3 - plan.config["dims"]
    if request.modality is None and plan.channels[0].strip().upper().startswith(EMISSION):
        raise WeightsError(
            "the model was trained on emission scans, which are not segmented",
            value=plan.channels[0],
            expected=" or ".join(VOLUMETRIC),
            hint="If the channel is only named so: --modality CT, or MR.",
        )
    said_modality = {} if request.modality is None else {"modality": request.modality}
    content = {**plan.input, **said_modality, "axis_codes": plan.axis_codes(orientation)}
    if mirror_axes:
        content["mirror_axes"] = [axis + shift for axis in mirror_axes]
    if plan.regions:
        content["regions"] = list(plan.regions)
    return {**content, **request.input}


def _story(made: tuple[_Made, ...], request: ImportRequest) -> dict[str, Any]:
    """What a person should know about the model, from its own files."""
    said = [str(found.described.get("licence") or found.described.get("license") or "") for found in made]
    sources = [str(found.described.get("reference") or found.described.get("description") or "") for found in made]
    trained = ", ".join(dict.fromkeys(f"{found.trainer} ({found.plan.configuration})" for found in made))
    return {
        "format": "safetensors",
        "licence": request.licence or "; ".join(dict.fromkeys(filter(None, said))) or "not stated",
        "citation": request.citation,
        **({"crop_to": list(request.crop_to)} if request.crop_to else {}),
        "attribution": "; ".join(dict.fromkeys(filter(None, sources))) or "not stated",
        "intended_use": INTENDED_USE,
        "caution": f"Imported from nnU-Net v2, trainer {trained}; no scores were measured by agseg.",
    }


def register(entry: dict[str, Any], request: ImportRequest, folder: Path) -> WeightsEntry:
    """Check the entry as it will be read, then put it in the place of an earlier one of its name."""
    path = site_manifest(request.home, request.as_id)
    earlier = set(imported_folder(request.home).glob(f"{request.as_id}-????????")) - {folder}
    local = f"../{folder.relative_to(request.home).as_posix()}"
    entry["files"] = [{**file, "local": f"{local}/{file['filename']}"} for file in entry["files"]]
    text = yaml.safe_dump({"schema": MANIFEST_SCHEMA, "entries": {request.as_id: entry}}, sort_keys=False)
    Manifest.check(text, path)
    make_folder(path.parent)
    write_text(path, text)
    for old in earlier:
        shutil.rmtree(old, ignore_errors=True)
    return Manifest.load(home=request.home).entry(request.as_id)


def _organ_names(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    names: dict[str, str] = bind_node(read(path, error=UsageError), dict[str, str])
    return names
