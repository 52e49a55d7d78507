"""Pictures of the organs of cases on which prediction and reference differ most, drawn as cases are scored."""

from __future__ import annotations

import re
import shutil
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.io.atomic import make_folder
from agseg.io.drawing import save
from agseg.training.evaluation import Evaluation
from agseg.training.scoring import CaseScore, Draw

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "worst"
"""Where the pictures go in an evaluation's folder: ``01.png``, the worst, and so on."""

MOST = 24
"""Pictures of an evaluation."""

PICTURES = "pictures"
"""Key of an evaluation's ``about``: case, organ and file of every picture, the worst first."""

_NAME = re.compile(r"\d{2}\.png")
_FILE = re.compile(rf"{FOLDER}/{_NAME.pattern}")


def badness(score: CaseScore) -> tuple[bool, float, int]:
    """To sort by, the worst first: the least Dice, then the most wrong voxels; what is empty on both sides comes last."""
    dice = score.counts.dice
    is_unknown = dice != dice
    return is_unknown, 0.0 if is_unknown else dice, -(score.counts.false_positive + score.counts.false_negative)


@dataclass
class WorstCases:
    """Keeps the pictures of the worst organs of cases that it is shown; only those are drawn that are among them by then.

    Parameters
    ----------
    most
        How many.
    """

    most: int = MOST
    _kept: list[tuple[tuple[bool, float, int], int, CaseScore, Image]] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, scores: Sequence[CaseScore], draw: Draw) -> None:
        """Look at the organs of one case."""
        for score in scores:
            self._seen += 1
            rank = badness(score)
            if not rank[0] and (len(self._kept) < self.most or rank < self._kept[-1][0]):
                # The number keeps scores and pictures, which have no order, from being compared.
                insort(self._kept, (rank, self._seen, score, draw(score.organ)))
                del self._kept[self.most :]

    def save(self, output: Path) -> list[dict[str, str]]:
        """Write the pictures into an evaluation's folder; gives case, organ and file of each."""
        clear_pictures(output)
        told = []
        for number, (_, _, score, picture) in enumerate(self._kept, start=1):
            file = f"{FOLDER}/{number:02d}.png"
            make_folder(output / FOLDER)
            save(picture, output / file)
            told.append({"case": score.case, "organ": score.organ, "file": file})
        return told


def gathered(folders: Sequence[Path], evaluations: Sequence[Evaluation], output: Path) -> list[dict[str, str]]:
    """The worst pictures of several evaluations in the folder of another one; as :meth:`WorstCases.save` gives them."""
    found: list[tuple[tuple[bool, float, int], int, Path, dict[str, Any]]] = []
    for folder, evaluation in zip(folders, evaluations, strict=True):
        scores = {(score.case, score.organ): score for score in evaluation.cases}
        for told in (evaluation.about or {}).get(PICTURES, ()):
            path, score = folder / told["file"], scores.get((told["case"], told["organ"]))
            if score is not None and _FILE.fullmatch(told["file"]) and path.is_file() and not path.is_symlink():
                found.append((badness(score), len(found), path, told))
    clear_pictures(output)
    told_here = []
    for number, (_, _, path, told) in enumerate(sorted(found)[:MOST], start=1):
        file = f"{FOLDER}/{number:02d}.png"
        shutil.copyfile(path, make_folder(output / FOLDER) / Path(file).name)
        told_here.append({"case": told["case"], "organ": told["organ"], "file": file})
    return told_here


def clear_pictures(output: Path) -> None:
    """Take away the pictures of an earlier evaluation in the same folder."""
    for path in (output / FOLDER).glob("*.png"):
        if _NAME.fullmatch(path.name):
            path.unlink()
