"""Training, validation and test splits: one file per cohort, shared by every protocol.

A rule orders the case ids by a hash of (seed, id) and cuts the list, so a split does not depend on a random generator's
version, and a case keeps its side when others are added at the end of the list. Cases that belong together (one subject's
frames) are cut together.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.io.atomic import write_text
from agseg.io.os_errors import no_folder
from agseg.io.resources import resource_path

SPLITS_FILE = "splits.json"
"""Beside ``dataset.json``: every named split of the cohort, each a list of folds."""

NNUNET_SPLITS_FILE = "splits_final.json"
"""nnU-Net's own file: a list of folds with ``train`` and ``val``."""


@dataclass(frozen=True)
class Split:
    """Case ids per side; no case stands on two sides."""

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = Counter([*self.train, *self.validation, *self.test])
        doubled = sorted(case for case, count in times.items() if count > 1)
        if doubled:
            raise RecipeError("a case is on two sides of the split", value=doubled[:5])


@dataclass(frozen=True)
class SplitRule:
    """How a cohort is cut.

    Parameters
    ----------
    source
        Where the numbers come from.
    test
        Cases kept for the test, as a number of ``of``; a cohort of another size is cut in the same proportion.
    of
        Size of the cohort that the numbers speak of.
    validation
        Share of the remaining cases that choose the best checkpoint.
    folds
        Cross-validation in place of one test set: each case is tested once.
    seed
        Of the order.
    """

    source: str
    test: int = 0
    of: int = 1
    validation: float = 0.1
    folds: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.test < self.of or not 0 <= self.validation < 1 or self.folds < 0:
            raise ValueError("a rule needs 0 <= test < of, 0 <= validation < 1 and folds >= 0")


@dataclass(frozen=True)
class SplitPlan:
    """The named rules of a data set (``train/splits/<dataset>.yaml``), and the one that is used if none is named."""

    dataset: str
    default: str
    splits: dict[str, SplitRule]

    def __post_init__(self) -> None:
        if self.default not in self.splits:
            raise ValueError(f"the default split {self.default!r} is not among {', '.join(self.splits)}")


def plan_of(dataset: str) -> SplitPlan:
    """The rules that ``train/splits`` holds for a data set."""
    path = resource_path("train/splits") / f"{dataset}.yaml"
    if not path.exists():
        raise RecipeError("no splits are known for this data set", value=dataset)
    return load(path, SplitPlan)


def split_cases(ids: Sequence[str], rule: SplitRule, *, group_of: Callable[[str], str] | None = None) -> tuple[Split, ...]:
    """Cut a cohort by a rule: one split, or one per fold.

    Parameters
    ----------
    ids
        Case ids, in any order.
    rule
        How to cut.
    group_of
        Which group a case belongs to; groups are never cut. By default every case is its own.
    """
    group_of = group_of or (lambda case: case)
    groups: dict[str, list[str]] = {}
    for case in sorted(ids):
        groups.setdefault(group_of(case), []).append(case)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{rule.seed}:{group}".encode()).hexdigest())
    if rule.folds:
        tests = [order[fold :: rule.folds] for fold in range(rule.folds)]
    else:
        tests = [order[: _part(len(order), rule.test / rule.of)]]
    splits = []
    for test in tests:
        tested = set(test)
        rest = [group for group in order if group not in tested]
        held = rest[: _part(len(rest), rule.validation)]
        sides = [[case for group in side for case in groups[group]] for side in (rest[len(held) :], held, test)]
        splits.append(Split(*(tuple(sorted(side)) for side in sides)))
    if any(not split.train for split in splits):
        raise RecipeError("too few cases: nothing is left to train on", value=len(order))
    return tuple(splits)


def _part(count: int, share: float) -> int:
    """The share as a whole number of cases, at least one where the share is not nothing."""
    return max(1, round(count * share)) if share > 0 and count > 1 else 0


def write_splits(root: Path, splits: Mapping[str, Sequence[Split]], *, tested_by_nnunet: bool = False) -> None:
    """Write ``splits.json``, and nnU-Net's ``splits_final.json`` for the split with the most folds.

    nnU-Net knows two sides. By default they are training and validation, and no test case is named. With ``tested_by_nnunet``
    nnU-Net trains on all but the test side of each fold and validates there: its predictions can then be compared with ours.
    """
    content = {name: [asdict(split) for split in folds] for name, folds in splits.items()}
    write_text(root / SPLITS_FILE, json.dumps(content, indent=2) + "\n")
    most = max(splits.values(), key=len)
    folds = [{"train": list(split.train), "val": list(split.validation)} for split in most]
    if tested_by_nnunet:
        folds = [{"train": sorted([*split.train, *split.validation]), "val": list(split.test)} for split in most]
    write_text(root / NNUNET_SPLITS_FILE, json.dumps(folds, indent=2) + "\n")


def has_splits(root: Path) -> bool:
    """Whether a cohort has ``splits.json``, or nnU-Net's ``splits_final.json``."""
    return any((root / name).exists() for name in (SPLITS_FILE, NNUNET_SPLITS_FILE))


def read_split(root: Path, name: str | None = None, *, fold: int = 0) -> Split:
    """One split of a cohort.

    Parameters
    ----------
    root
        The cohort's folder; ``splits.json`` is read, or else nnU-Net's ``splits_final.json`` (which knows no test cases).
    name
        Which split; may be left out where there is only one.
    fold
        Which fold of it.

    Raises
    ------
    RecipeError
        If there is no such split or fold.
    """
    try:
        if (root / SPLITS_FILE).exists():
            named = json.loads((root / SPLITS_FILE).read_text(encoding="utf-8"))
        else:
            folds = json.loads((root / NNUNET_SPLITS_FILE).read_text(encoding="utf-8"))
            named = {"splits_final": [{"train": f["train"], "validation": f["val"]} for f in folds]}
            name = None
        chosen = named[name] if name is not None else next(iter(named.values()))
        found = chosen[fold]
        return Split(**{side: tuple(cases) for side, cases in found.items()})
    except OSError:
        raise _no_splits(root) from None
    except IndexError as error:
        raise RecipeError(
            "the split has no such fold", path=root, value=fold, expected=f"0 to {len(chosen) - 1}", hint="Give another --fold."
        ) from error
    except KeyError as error:
        raise RecipeError(
            "no such split",
            path=root / SPLITS_FILE,
            value=name,
            expected=f"one of {', '.join(named)}",
            hint=f"Take another one with --set split={next(iter(named), 'NAME')} (train), or --split (evaluate).",
        ) from error
    except (TypeError, ValueError, StopIteration) as error:
        raise RecipeError("the split file is not as agseg writes it", path=root / SPLITS_FILE) from error


def fold_count(root: Path, name: str) -> int:
    """How many folds a split of a cohort has, by ``splits.json`` or else by nnU-Net's file; 1 where there is neither."""
    path = root / SPLITS_FILE
    if path.exists():
        return len(json.loads(path.read_text(encoding="utf-8"))[name])
    theirs = root / NNUNET_SPLITS_FILE
    return len(json.loads(theirs.read_text(encoding="utf-8"))) if theirs.exists() else 1


def all_folds(root: Path, name: str) -> tuple[Split, ...]:
    """Every fold of a split.

    Raises
    ------
    RecipeError
        If there is no such split.
    """
    return tuple(read_split(root, name, fold=fold) for fold in range(fold_count(root, name)))


def default_split(root: Path) -> str:
    """The name of a cohort's first split, which is its data set's default."""
    if not (root / SPLITS_FILE).exists() and (root / NNUNET_SPLITS_FILE).exists():
        return Path(NNUNET_SPLITS_FILE).stem
    try:
        return str(next(iter(json.loads((root / SPLITS_FILE).read_text(encoding="utf-8")))))
    except (OSError, ValueError, StopIteration) as error:
        raise _no_splits(root) from error


def _no_splits(root: Path) -> RecipeError:
    if missing := no_folder(root):
        return RecipeError(missing, path=root, hint="Name the cohort's folder with --data.")
    return RecipeError(
        "the cohort has no split file",
        path=root,
        expected=f"{SPLITS_FILE}, or nnU-Net's {NNUNET_SPLITS_FILE}",
        hint=f"Write one: agseg dataset split {root} --folds 5",
    )
