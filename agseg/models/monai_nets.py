"""Networks taken from MONAI (the ``monai`` extra): U-Net and SegResNet for its bundles, V-Net as a baseline.

They are MONAI's own modules with MONAI's own arguments and parameter names, so that its bundles load strictly; only
``size_multiple`` is added.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import nn

from agseg.extras import require

VNET_SIZE_MULTIPLE = 16
"""V-Net halves the grid four times."""


def monai_unet(**arguments: Any) -> nn.Module:
    """``monai.networks.nets.UNet`` with the arguments of MONAI."""
    network = _nets().UNet(**arguments)
    return _sized(network, prod(max(stride) if isinstance(stride, list) else stride for stride in arguments["strides"]))


def monai_segresnet(**arguments: Any) -> nn.Module:
    """``monai.networks.nets.SegResNet`` with the arguments of MONAI."""
    network = _nets().SegResNet(**arguments)
    return _sized(network, 2 ** (len(network.blocks_down) - 1))


def monai_vnet(**arguments: Any) -> nn.Module:
    """``monai.networks.nets.VNet`` with the arguments of MONAI."""
    return _sized(_nets().VNet(**arguments), VNET_SIZE_MULTIPLE)


def _nets() -> Any:
    return require("monai.networks.nets", purpose="this network")


def _sized(network: nn.Module, size_multiple: int) -> nn.Module:
    network.size_multiple = size_multiple  # type: ignore[assignment]
    return network
