"""Score a scan-plane classifier on the test frames of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError
from agseg.io.atomic import write_text
from agseg.training.beside import changes_of, row_beside
from agseg.training.cohort import provenance
from agseg.training.datasets import Task, dataset
from agseg.training.evaluation import without_nan
from agseg.training.frame_table import FrameTable, Improvement, improvement, read_frame_table, to_markdown, write_frame_table
from agseg.training.frames import open_frames
from agseg.training.leakage import refuse_known
from agseg.training.published import published_row
from agseg.training.scoring import FrameScore, score_frames
from agseg.training.splits import read_split
from agseg.training.trained_model import TrainedModel
from agseg.workflows.frame_page import write_frame_page

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FrameReport:
    """Scan planes: accuracy, and macro precision, recall and F1 over classes.

    ``same_image``: test frames that hold the same image as a learned one of another subject, whose id it gives. ``over``: what
    the network has over those it was compared with.
    """

    frames: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    output: Path
    same_image: Mapping[str, str] = field(default_factory=dict)
    over: tuple[Improvement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``; NaN becomes null."""
        return dict(without_nan({**asdict(self), "output": str(self.output)}))


def evaluate_frames(
    trained: TrainedModel,
    *,
    data: Path,
    output: Path,
    split: str,
    fold: int = 0,
    against: Sequence[Path] = (),
    name: str | None = None,
    progress: Progress | None = None,
) -> FrameReport:
    """Classify the test frames of a split; writes per_frame.csv, frames.json, classes.csv, table.md and report.html.

    Parameters
    ----------
    against
        Folders of earlier evaluations on the same frames: what ours has over each, class by class, with tests over subjects.
    name
        What the row is called; the network by default.

    Raises
    ------
    RecipeError
        If the recipe does not classify frames, nothing is kept for the test, or an earlier evaluation was made on other frames.
    UsageError
        If the network has learned from a frame of this test side.
    """
    facts = dataset(trained.recipe.dataset)
    if facts.task is not Task.FRAME:
        raise RecipeError("this network does not classify frames", value=trained.recipe.name)
    earlier = [read_frame_table(folder) for folder in against]
    sides = read_split(data, split, fold=fold)
    ids = sides.test
    if not ids:
        raise RecipeError("this split keeps no frame for the test", path=data, value=split)
    same = refuse_known(trained, data, ids, split=sides)
    scores: list[FrameScore] = []
    for number, score in enumerate(score_frames(trained, data, ids), start=1):
        scores.append(score)
        if progress:
            progress(number, len(ids), score.case)
    recipe = trained.recipe
    table = FrameTable(name or recipe.network.architecture, tuple(facts.labels.values()), tuple(scores))
    over = [improvement(table, theirs) for theirs in earlier]
    write_frame_table(output, table, over=over)
    synthetic = provenance(data).synthetic
    key = row_beside(trained, cohort=recipe.dataset, protocol_name=recipe.protocol, split=split, synthetic=synthetic)
    printed = published_row(key)
    by_class = published_row(f"{recipe.dataset}.classes.{recipe.network.architecture}") if printed else None
    content = to_markdown(table, over, printed, by_class) + _same_images(same) + _changed(changes_of(trained))
    write_text(output / "table.md", content)
    write_frame_page(output, table, data=recipe.dataset, read=open_frames(data).read)
    total = table.total
    return FrameReport(len(ids), total.accuracy, total.precision, total.recall, total.f1, output, same, tuple(over))


def _changed(keys: Sequence[str]) -> str:
    return (
        f"\nNo published row stands here, as this does not repeat the paper's experiment ({', '.join(keys)}).\n" if keys else ""
    )


def _same_images(same: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{frame} = {learned}" for frame, learned in same.items())
    return f"\nTest frames that hold the image of a learned frame ({len(same)}): {pairs}.\n" if same else ""
