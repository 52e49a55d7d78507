"""Transfer protocols (BFT, AFT, SCR) as data, ``train/protocols.yaml``, instead of scripts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.io.resources import resource_path
from agseg.labels import LabelSet


class Start(StrEnum):
    """Where the weights come from."""

    SOURCE = "source"
    """A network trained on the source data set."""
    NOTHING = "nothing"
    """Fresh weights."""


class Logits(StrEnum):
    """Which logits count."""

    ALL = "all"
    """Every class of the network; where it knows more organs than the data set, they compete for voxels."""
    TARGET = "target"
    """Only background and the data set's organs: the others are dropped before the softmax and get no gradient."""


@dataclass(frozen=True)
class Protocol:
    """One way to a prediction on the target data set."""

    name: str
    title: str
    start: Start
    trains: bool
    logits: Logits

    def __post_init__(self) -> None:
        if self.start is Start.NOTHING and not self.trains:
            raise ValueError("a protocol that starts from nothing must train")


OWN = Protocol("own", "Trained on data of one's own", Start.NOTHING, True, Logits.ALL)
"""No protocol of the papers: what is trained on other data than theirs, wherever its weights come from."""


@dataclass(frozen=True)
class _Protocols:
    protocols: tuple[Protocol, ...]


def protocols() -> tuple[Protocol, ...]:
    """All protocols in the order of the papers' Table 3."""
    return load(resource_path("train") / "protocols.yaml", _Protocols).protocols


def protocol(name: str) -> Protocol:
    """One protocol by name, in either case; :data:`OWN` too.

    Raises
    ------
    RecipeError
        If it is not known.
    """
    known = {found.name: found for found in (*protocols(), OWN)}
    if name.lower() not in known:
        raise RecipeError(f"unknown protocol {name!r}", expected=f"one of {', '.join(known)}")
    return known[name.lower()]


def kept_classes(network: LabelSet, target: LabelSet) -> tuple[int, ...]:
    """Class indices of a network that a target data set labels, background first, in order of the target's index.

    Raises
    ------
    RecipeError
        If the network does not know an organ of the target.
    """
    strangers = [name for name in target.names if name not in network]
    if strangers:
        raise RecipeError("the source network does not know this organ", value=strangers[0], expected=", ".join(network.names))
    return (0, *(network[name].index for name in target.names))
