"""Every network by name: its builder, and the configurations that the papers published.

A name is either a family (``unet``, ``attention-unet``, ...) or a published configuration of one (``unet3d``,
``attention-unet3d``, ...); :func:`build` takes both, and the keyword arguments given override the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from agseg.errors import UsageError
from agseg.models.attention_unet import AttentionUNet
from agseg.models.obelisk import OBELISK_SIDE, Obelisk
from agseg.models.unet import UNet

__all__ = ["FAMILIES", "PUBLISHED", "Published", "build", "config_of", "prunable"]

AGN_TABLE_1 = "Attention Gated Networks (2019), Table 1"
AGN_TABLE_2 = "Attention Gated Networks (2019), Table 2"

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "attention-unet": AttentionUNet,
    "obelisk-hybrid": Obelisk,
}
"""Family name to builder; builders take keyword arguments of plain JSON values."""


@dataclass(frozen=True)
class Published:
    """A network at the configuration of a paper.

    Parameters
    ----------
    family, config
        Key of :data:`FAMILIES` and its keyword arguments.
    input_shape
        The paper's input, ``(batch, channels, *grid)``.
    published_m
        Parameters in millions as printed, None where nothing is published.
    decimals
        Digits after the point in print.
    truncated
        Whether the paper's table truncates instead of rounding.
    source
        Where the number, or else the topology, is published.
    """

    family: str
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    source: str
    published_m: float | None = None
    decimals: int = 2
    truncated: bool = False
    dims: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", len(self.input_shape) - 2)


CT_TILE = (1, 1, 160, 160, 96)
"""Input of the pancreas networks: voxels of 2 mm."""

PUBLISHED: dict[str, Published] = {
    "unet3d": Published("unet", {}, CT_TILE, AGN_TABLE_1, 5.88, truncated=True),
    "attention-unet3d": Published("attention-unet", {}, CT_TILE, AGN_TABLE_1, 6.40, truncated=True),
    "attention-unet3d-proj": Published("attention-unet", {"gating": "proj"}, CT_TILE, AGN_TABLE_1, 6.40, truncated=True),
    "unet3d-6.44m": Published("unet", {"widths": [16, 33, 67, 134, 268]}, CT_TILE, AGN_TABLE_2, 6.44, truncated=True),
    "unet3d-10.40m": Published("unet", {"widths": [21, 42, 85, 170, 341]}, CT_TILE, AGN_TABLE_2, 10.40, truncated=True),
    "obelisk-hybrid": Published(
        "obelisk-hybrid", {}, (1, 1, OBELISK_SIDE, OBELISK_SIDE, OBELISK_SIDE), "Heinrich et al., OBELISK-Net (2019)"
    ),
}
"""Published configuration by its name in ``agseg models``."""


def config_of(architecture: str, config: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """The family and the complete keyword arguments that ``architecture`` with ``config`` stands for.

    Raises
    ------
    UsageError
        If no network has this name.
    """
    if architecture in PUBLISHED:
        published = PUBLISHED[architecture]
        return published.family, {**published.config, **(config or {})}
    if architecture in FAMILIES:
        return architecture, dict(config or {})
    raise UsageError(
        "no network has this name",
        value=architecture,
        expected=", ".join([*FAMILIES, *PUBLISHED]),
        hint="List the networks with: agseg models",
    )


def build(architecture: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """The network with fresh weights.

    Parameters
    ----------
    architecture
        A family or a published configuration.
    config
        Keyword arguments of its builder; they override the published ones.

    Raises
    ------
    UsageError
        If there is no such network, or it does not take such an argument.
    """
    family, arguments = config_of(architecture, config)
    try:
        return FAMILIES[family](**arguments)
    except TypeError as error:
        raise UsageError(f"{architecture} cannot be built from this configuration", value=sorted(arguments)) from error


def prunable() -> tuple[str, ...]:
    """Names of the architectures that can stop at a smaller depth."""
    return ()
