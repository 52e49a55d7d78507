"""Where the models are in a folder: ``TRAINER__PLANS__CONFIGURATION`` with plans, data set and folds, one or several as one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agseg.binding import load
from agseg.errors import FieldError, WeightsError
from agseg.weights.nnunet.facts import Facts

PARTS_NAME = "parts.yaml"

_FOLD = re.compile(r"fold_(\d+|all)")


@dataclass(frozen=True)
class ModelFolder:
    """A folder of one trained model.

    Parameters
    ----------
    path
        Holds ``plans.json``, ``dataset.json`` and the folds.
    folds
        Fold name (``0`` to ``4``, or ``all``) to checkpoint.
    """

    path: Path
    folds: dict[str, Path]

    def chosen(self, names: Sequence[str] = ()) -> dict[str, Path]:
        """The checkpoints of some folds; by default all that there are.

        Raises
        ------
        WeightsError
            If one is missing.
        """
        if missing := [name for name in names if name not in self.folds]:
            raise WeightsError(
                "the model has no such fold", path=self.path, value=missing[0], expected=" or ".join(sorted(self.folds))
            )
        return {name: self.folds[name] for name in names or sorted(self.folds)}

    def largest_of(self) -> tuple[tuple[int, ...], ...]:
        """Sets of labels of which cross-validation found that only the largest component should stay, in order."""
        found = sorted(self.path.glob("crossval_results_folds_*/postprocessing.json"))
        if not found:
            return ()
        facts = Facts.read(found[0])
        steps = list(
            zip(facts.take("postprocessing_fns", list, []), facts.take("postprocessing_kwargs", list, []), strict=True)
        )
        sets = []
        for function, arguments in steps:
            if function != "remove_all_but_largest_component_from_segmentation" or not isinstance(arguments, dict):
                raise facts.refuse("postprocessing_fns", "is not supported", value=function)
            sets.append(tuple(_flat(arguments.get("labels_or_regions"), facts)))
        return tuple(sets)


def _flat(labels: object, facts: Facts) -> list[int]:
    """The label numbers of nested lists."""
    if isinstance(labels, list):
        return [number for item in labels for number in _flat(item, facts)]
    if isinstance(labels, int) and not isinstance(labels, bool):
        return [labels]
    raise facts.refuse("postprocessing_kwargs", "names no labels", value=labels)


def find_models(root: Path) -> tuple[ModelFolder, ...]:
    """Every model folder at or below ``root``, in order of the path.

    Raises
    ------
    WeightsError
        If there is none.
    """
    found = []
    for plans in sorted(root.rglob("plans.json")):
        if (plans.parent / "dataset.json").is_file() and (folds := _folds(plans.parent)):
            found.append(ModelFolder(plans.parent, folds))
    if not found:
        raise WeightsError(
            "no trained model of nnU-Net v2 is here",
            path=root,
            expected="a folder with plans.json, dataset.json and fold_*/checkpoint_final.pth",
        )
    return tuple(found)


def _folds(folder: Path) -> dict[str, Path]:
    folds = {}
    for path in sorted(folder.iterdir()):
        name, checkpoint = _FOLD.fullmatch(path.name), path / "checkpoint_final.pth"
        if name and checkpoint.is_file():
            folds[name[1]] = checkpoint
    return folds


@dataclass(frozen=True)
class PartsPart:
    """One model of several: its folder, relative to the file, and its own labels."""

    model: str
    labels: dict[int, str]

    def __post_init__(self) -> None:
        inside = PurePosixPath(self.model)
        if inside.is_absolute() or ".." in inside.parts or not inside.parts:
            raise FieldError("model", "not a folder below this file", value=self.model)


@dataclass(frozen=True)
class Parts:
    """``parts.yaml``: several models as one; where a later part says organ, it overwrites an earlier one."""

    parts: tuple[PartsPart, ...]
    labels: dict[int, str]

    def __post_init__(self) -> None:
        known = set(self.labels.values())
        for part in self.parts:
            if strangers := set(part.labels.values()) - known:
                raise FieldError("parts", "names an organ that labels do not have", value=min(strangers))
        if not self.parts:
            raise FieldError("parts", "at least one model is needed")


def read_parts(root: Path) -> tuple[Path, Parts] | None:
    """The one ``parts.yaml`` at or below ``root`` and its folder, or None.

    Raises
    ------
    WeightsError
        If there are several, or it does not hold together.
    """
    found = sorted(root.rglob(PARTS_NAME))
    if not found:
        return None
    if len(found) > 1:
        raise WeightsError("several parts.yaml are here", path=root, value=len(found), expected="one")
    return found[0].parent, load(found[0], Parts, error=WeightsError)
