"""Sanity checks on class scores before argmax. Comparisons with NaN are false: it would look like background."""

from __future__ import annotations

import torch
from torch import Tensor

from agseg.errors import Code, InferenceError, WeightsError
from agseg.labels import LabelSet

__all__ = ["NonFiniteScoresError", "check_logits", "check_probabilities"]


class NonFiniteScoresError(InferenceError):
    """The network's scores are NaN or infinite: half precision overflowed, or the weights are broken."""

    default_code = Code.INFERENCE


def check_probabilities(probabilities: Tensor, labels: LabelSet) -> None:
    """Refuse what cannot become a mask.

    Parameters
    ----------
    probabilities
        Softmax over the classes, shape (classes, x, y, z). A score that is NaN or +inf makes its whole softmax NaN, so that
        looking at one class finds it.
    labels
        What the classes mean.

    Raises
    ------
    NonFiniteScoresError
        If any is not a finite number.
    WeightsError
        If a label names a class that the network does not have.
    """
    classes = probabilities.shape[0]
    if classes < labels.class_count:
        beyond = [label.name for label in labels if label.index >= classes]
        raise WeightsError(
            "the weights' labels name classes that their network does not have",
            value=", ".join(beyond),
            expected=f"labels 1 to {classes - 1}",
            hint="Correct labels or config in the manifest.",
        )
    if not bool(torch.isfinite(probabilities[0]).all()):
        raise _not_finite()


def check_logits(logits: Tensor, labels: LabelSet, *, regions: tuple[int, ...] = ()) -> None:
    """The same for logits, shape (heads, x, y, z); ``regions`` are the labels of the heads, where those are regions.

    Raises
    ------
    NonFiniteScoresError
        If any is not a finite number.
    WeightsError
        If there is another number of heads than the labels name.
    """
    heads, expected = logits.shape[0], len(regions) or labels.class_count
    if heads < expected or (regions and heads != expected):
        raise WeightsError(
            "the weights' labels do not fit their network",
            value=f"{heads} heads",
            expected=f"{expected}",
            hint="Correct labels, regions or config in the manifest.",
        )
    # One sum finds all: NaN and infinities stay what they are, and opposite ones make NaN.
    if not bool(torch.isfinite(logits.sum(dtype=torch.float64))):
        raise _not_finite()


def _not_finite() -> NonFiniteScoresError:
    return NonFiniteScoresError(
        "the network's scores are not finite numbers",
        hint="Run it with --precision fp32; if that fails too, the weights are broken.",
    )
