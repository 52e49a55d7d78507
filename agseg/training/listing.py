"""What a recipe says of scans that lie in no cohort: it lists them, and what the numbers of their label maps mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agseg.errors import FieldError
from agseg.training.synthesis import Phase, Tissue


@dataclass(frozen=True)
class OpenCase:
    """One listed scan.

    Parameters
    ----------
    image, labels
        Paths below the data folder; ``labels`` may begin with ``train:`` for a label map that travels with agseg. Without an
        image, one is drawn from the label map at every step.
    weight
        How often it is drawn.
    known
        Classes its labels tell apart, None for all.
    phase
        When after the contrast medium it was taken, where that is known: how scores are grouped.
    """

    id: str
    labels: str
    image: str | None = None
    weight: float = 1.0
    known: tuple[int, ...] | None = None
    phase: Phase | None = None


@dataclass(frozen=True)
class Structure:
    """What a number of the label maps is: a tissue to be recoloured as, and a class of the network (0: background)."""

    tissue: Tissue
    label: int = 0


def check_list(
    cases: Sequence[OpenCase], left_out: Sequence[OpenCase], *, labels: Mapping[int, str], structures: Mapping[int, Structure]
) -> None:
    """See that a recipe's own list of scans holds together.

    Raises
    ------
    FieldError
        If ids are doubled, a scan is both trained on and left out, or a label is made of no structure.
    """
    ids = [case.id for case in (*cases, *left_out)]
    if doubled := sorted({i for i in ids if ids.count(i) > 1}):
        raise FieldError("cases", "two cases have one id", value=doubled)
    if both := {case.image for case in cases if case.image is not None} & {case.image for case in left_out}:
        raise FieldError("left_out", "a scan is both trained on and left out", value=sorted(map(str, both)))
    made = {structure.label for structure in structures.values()} - {0}
    if made != set(labels):
        raise FieldError("structures", "each label is made of structures", value=sorted(made), expected=sorted(labels))
    for case in (*cases, *left_out):
        if case.weight <= 0 or not set(case.known or ()) <= set(labels):
            raise FieldError("cases", "a case has a weight above 0 and knows labels of the recipe", value=case.id)
