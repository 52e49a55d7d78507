"""Sanity checks on class scores before argmax. Comparisons with NaN are false: it would look like background."""

from __future__ import annotations

import torch
from torch import Tensor

from agseg.errors import Code, InferenceError, WeightsError
from agseg.labels import LabelSet


class NonFiniteScoresError(InferenceError):
    """The network's scores are NaN or infinite: half precision overflowed, or the weights are broken."""

    default_code = Code.INFERENCE


def check_classes(classes: int, labels: LabelSet) -> None:
    """Refuse a network with fewer classes (background included) than its labels name.

    Raises
    ------
    WeightsError
        If a label names a class that the network does not have.
    """
    if classes < labels.class_count:
        beyond = [label.name for label in labels if label.index >= classes]
        raise WeightsError(
            "the weights' labels name classes that their network does not have",
            value=", ".join(beyond),
            expected=f"labels 1 to {classes - 1}",
            hint="Correct labels or config in the manifest.",
        )


def check_heads(heads: int, labels: LabelSet, *, regions: tuple[int, ...] = ()) -> None:
    """The same for a network whose logits are carried back; ``regions`` are the labels of the heads, where those are regions.

    Raises
    ------
    WeightsError
        If there is another number of heads than the labels name.
    """
    expected = len(regions) or labels.class_count
    if heads < expected or (regions and heads != expected):
        raise WeightsError(
            "the weights' labels do not fit their network",
            value=f"{heads} heads",
            expected=f"{expected}",
            hint="Correct labels, regions or config in the manifest.",
        )


def probabilities_are_finite(probabilities: Tensor) -> Tensor:
    """Whether all of (classes, x, y, z) are finite numbers: one bool, on their device.

    A score that is NaN or +inf makes its whole softmax NaN, so that looking at one class finds it.
    """
    return torch.isfinite(probabilities[0]).all()


def logits_are_finite(logits: Tensor) -> Tensor:
    """Whether all of (heads, x, y, z) are finite numbers: one bool, on their device.

    One sum finds all: NaN and infinities stay what they are, and opposite ones make NaN.
    """
    return torch.isfinite(logits.sum(dtype=torch.float64))


def check_probabilities(probabilities: Tensor, labels: LabelSet) -> None:
    """Refuse probabilities (classes, x, y, z) that cannot become a mask.

    Raises
    ------
    NonFiniteScoresError
        If any is not a finite number.
    WeightsError
        If a label names a class that the network does not have.
    """
    check_classes(probabilities.shape[0], labels)
    if not bool(probabilities_are_finite(probabilities)):
        raise not_finite()


def not_finite() -> NonFiniteScoresError:
    """The error for scores that are not finite."""
    return NonFiniteScoresError(
        "the network's scores are not finite numbers",
        hint="Run it with --precision fp32; if that fails too, the weights are broken.",
    )
