"""List every network at its published configurations: what we count beside what is printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import floor
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from agseg.models.published import PUBLISHED, Published
from agseg.models.registry import build

OPERATIONS_PER_MAC = 2
"""A multiplication and an addition."""


@dataclass(frozen=True)
class NetworkRow:
    """One network of ``agseg models``.

    Parameters
    ----------
    name, dims
        Its name; 2 or 3 spatial dimensions.
    parameters
        Learned parameters, counted on the built network.
    published_m, agreement
        Millions as printed, None where nothing is; how ours compares.
    gmac
        Multiply-accumulates (1e9) of convolutions and linear layers in one forward pass at ``input_shape``.
    input_shape
        ``(batch, channels, *grid)``.
    source
        Where it is published.
    """

    name: str
    dims: int
    parameters: int
    published_m: float | None
    agreement: str
    gmac: float
    input_shape: tuple[int, ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "input_shape": list(self.input_shape)}


def list_networks() -> tuple[NetworkRow, ...]:
    """Every published configuration, counted without allocating a parameter."""
    return tuple(_row(name, published) for name, published in PUBLISHED.items())


def _row(name: str, published: Published) -> NetworkRow:
    with torch.device("meta"):
        network = build(name).eval()
        image = torch.empty(published.input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkRow(
        name=name,
        dims=published.dims,
        parameters=parameters,
        published_m=published.published_m,
        agreement=agreement(parameters, published),
        gmac=round(counter.get_total_flops() / OPERATIONS_PER_MAC / 1e9, 4),
        input_shape=published.input_shape,
        source=published.source,
    )


def agreement(parameters: int, published: Published) -> str:
    """``exact`` or ``truncated`` if our count prints as the paper's figure (so rounded or cut off), else the deviation."""
    if published.published_m is None:
        return "not published"
    millions, scale = parameters / 1e6, 10**published.decimals
    if round(millions, published.decimals) == published.published_m:
        return "exact"
    if published.truncated and floor(millions * scale) / scale == published.published_m:
        return "truncated"
    return f"{100 * (millions / published.published_m - 1):+.2f} %"
