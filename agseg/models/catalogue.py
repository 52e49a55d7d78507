"""Every network by name, without building one: facts for the command line, the batch's parent process and the registry.

A name is either a family (``unet``, ``attention-unet``, ...) or a published configuration of one (``unet3d``,
``attention-unet3d``, ...). A new architecture is one file and one line in :data:`FAMILIES`; see docs/extending.md.
Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agseg.errors import UsageError
from agseg.models.published import PUBLISHED

Config = Mapping[str, Any]

LEVELS = 5
"""Levels of the U-shaped networks whose configuration names no widths."""

NESTED_DEPTH = 4
"""Depth of a nested network whose configuration names none."""


def _yes(_config: Config) -> bool:
    return True


def _no(_config: Config) -> bool:
    return False


def _zero(_config: Config) -> int:
    return 0


@dataclass(frozen=True)
class Family:
    """What a family's networks are, as functions of their configuration (the builder's keyword arguments).

    Parameters
    ----------
    builder
        ``module:name`` of the class or function that builds one; its arguments are plain JSON values.
    size_multiple
        What each side of an image must be a multiple of.
    side_multiples
        The same per axis, where axes differ.
    in_channels, classes
        Channels of image and scores where the configuration names none.
    classes_key
        The configuration's name for the number of classes.
    deepest
        The depths from 1 at which a trained network can be cut off (``--prune-depth``); 0 means that it cannot.
    has_gates
        Whether it has attention gates, whose coefficients ``--attention`` writes.
    full_precision_only
        Whether half precision spoils its scores, so that it runs in fp32 whatever was asked.
    classifies_frames
        Whether it labels whole frames instead of voxels.
    """

    builder: str
    size_multiple: Callable[[Config], int]
    side_multiples: Callable[[Config], tuple[int, ...]] | None = None
    in_channels: int = 1
    classes: int = 1
    classes_key: str = "classes"
    deepest: Callable[[Config], int] = _zero
    has_gates: Callable[[Config], bool] = _no
    full_precision_only: bool = False
    classifies_frames: bool = False


def _always(n: int) -> Callable[[Config], int]:
    return lambda config: n


def _levels(config: Config) -> int:
    """2 to the number of halvings of a U-shaped network."""
    widths = config.get("widths")
    return int(2 ** ((len(widths) if widths else LEVELS) - 1))


def _nested(config: Config) -> int:
    return int(2 ** int(config.get("depth", NESTED_DEPTH)))


def _nested_depth(config: Config) -> int:
    """The depth that was trained, and no deeper than there are rows."""
    widths = config.get("widths")
    depth = int(config.get("depth", NESTED_DEPTH))
    return min(depth, len(widths) - 1) if widths else depth


def _strides_per_axis(config: Config) -> tuple[int, ...]:
    """Of nnU-Net's networks: a stride per stage, one number or one per axis."""
    dims = int(config.get("dims", 3))
    stages = [s if isinstance(s, Sequence) else [s] * dims for s in config.get("strides", ())]
    return tuple(math.prod(axis) for axis in zip(*stages, strict=True))


def _strides(config: Config) -> int:
    return math.lcm(*_strides_per_axis(config))


def _monai_unet(config: Config) -> int:
    return math.prod(max(s) if isinstance(s, Sequence) else s for s in config.get("strides", ()))


def _monai_segresnet(config: Config) -> int:
    return int(2 ** (len(config.get("blocks_down", (1, 2, 2, 4))) - 1))


FAMILIES: dict[str, Family] = {
    "unet": Family("agseg.models.unet:UNet", _levels, classes=4),
    "attention-unet": Family("agseg.models.attention_unet:AttentionUNet", _levels, classes=4, has_gates=_yes),
    "obelisk-hybrid": Family("agseg.models.obelisk:Obelisk", _always(8), classes=9, full_precision_only=True),
    "anu-net": Family("agseg.models.anu_net:ANUNet", _nested, deepest=_nested_depth, has_gates=_yes),
    "unetpp": Family("agseg.models.unetpp:UNetPlusPlus", _nested),
    "r2unet": Family("agseg.models.r2unet:R2UNet", _levels, has_gates=lambda config: bool(config.get("gated", False))),
    "focusnet": Family("agseg.models.focusnet:FocusNet", _levels, in_channels=3, has_gates=_yes),
    "focusnet-released": Family("agseg.models.focusnet_released:FocusNetReleased", _always(16), in_channels=3, has_gates=_yes),
    "sononet": Family("agseg.models.sononet:Sononet", _always(16), classes=14, classifies_frames=True),
    "ag-sononet": Family("agseg.models.sononet:AGSononet", _always(16), classes=14, has_gates=_yes, classifies_frames=True),
    "sononet-original": Family(
        "agseg.models.sononet_original:SonoNetOriginal", _always(16), classes=14, classifies_frames=True
    ),
    "monai-unet": Family("agseg.models.monai_nets:monai_unet", _monai_unet, classes_key="out_channels"),
    "monai-segresnet": Family("agseg.models.monai_nets:monai_segresnet", _monai_segresnet, classes_key="out_channels"),
    "monai-vnet": Family("agseg.models.monai_nets:monai_vnet", _always(16), classes_key="out_channels"),
    "nnunet-plain": Family("agseg.models.nnunet:nnunet_plain", _strides, _strides_per_axis),
    "nnunet-resenc": Family("agseg.models.nnunet:nnunet_resenc", _strides, _strides_per_axis),
}
"""Every family by name."""


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


@dataclass(frozen=True)
class Facts:
    """What one network is, see :class:`Family`."""

    family: str
    in_channels: int
    classes: int
    size_multiple: int
    side_multiples: tuple[int, ...] | None
    deepest: int
    has_gates: bool
    full_precision_only: bool
    classifies_frames: bool

    def takes(self, sides: Sequence[int]) -> bool:
        """Whether an image of these sides goes through; a first side of 1 means a plane."""
        each = self.side_multiples or (self.size_multiple,) * len(sides)
        return not any(side % multiple for side, multiple in zip(sides[-len(each) :], each, strict=True) if side > 1)


def facts(architecture: str, config: Config | None = None) -> Facts:
    """What the network ``architecture`` with ``config`` is.

    Raises
    ------
    UsageError
        If no network has this name.
    """
    name, full = config_of(architecture, config)
    family = FAMILIES[name]
    return Facts(
        family=name,
        in_channels=int(full.get("in_channels", family.in_channels)),
        classes=int(full.get(family.classes_key, family.classes)),
        size_multiple=family.size_multiple(full),
        side_multiples=None if family.side_multiples is None else family.side_multiples(full),
        deepest=family.deepest(full),
        has_gates=family.has_gates(full),
        full_precision_only=family.full_precision_only,
        classifies_frames=family.classifies_frames,
    )


def check_depth(architecture: str, config: Config, depth: int, *, weights: str, able: Sequence[str] | None = None) -> None:
    """Refuse a depth at which these weights cannot be cut off. The one rule: parent process, loader and curve ask here.

    Parameters
    ----------
    weights
        Their id, for the message.
    able
        Ids of weights that can, where they are known.

    Raises
    ------
    UsageError
        With the networks, and weights, that can be cut off; or with the depths that exist.
    """
    deepest = facts(architecture, config).deepest
    if deepest < 2:
        raise UsageError(
            f"weights {weights!r} ({architecture}) cannot be pruned",
            value=f"--prune-depth {depth}",
            expected=f"weights of {', '.join(prunable())}",
            hint=None if able is None else f"Weights that can: {', '.join(able) or 'none of the manifest'}.",
        )
    if not 1 <= depth <= deepest:
        raise UsageError("these weights have no such depth", value=depth, expected=f"1 to {deepest}")


def prunable() -> tuple[str, ...]:
    """Names of the networks that can be cut off at a smaller depth."""
    return tuple(name for name in (*FAMILIES, *PUBLISHED) if facts(name).deepest > 1)
