"""Thin modules around a network, so that one loop and one prediction path serve every protocol and dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from agseg.errors import RecipeError
from agseg.models.unet import UNet


class KeptLogits(nn.Module):
    """A network of which only some logits count: the others are dropped before any softmax.

    Parameters
    ----------
    network
        Trained on more organs.
    kept
        Class indices in logit order, background first, e.g. ``(0, 2)``.
    """

    def __init__(self, network: nn.Module, kept: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.kept = tuple(kept)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, kept, *grid]``."""
        return cast(Tensor, self.network(x))[:, list(self.kept)]


class EveryScore(nn.Module):
    """A classifier whose heads' logits the loop asks for as ``heads``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities ``[B, classes]``."""
        return cast(Tensor, self.network(x))

    def heads(self, x: Tensor) -> list[Tensor]:
        """Logits of every head."""
        return cast("list[Tensor]", cast(Any, self.network).scores(x))


@torch.no_grad()
def fold_kept(network: nn.Module, kept: Sequence[int], into: nn.Module) -> nn.Module:
    """A smaller network that gives exactly the kept logits of a larger one.

    The fused logits are a 1x1 convolution of the side logits, which are 1x1 convolutions of the decoder maps; two such layers
    are one. The kept rows of that product become the small network's side layers, and its head only adds them up.

    Parameters
    ----------
    network
        A (attention) U-Net.
    kept
        The classes to keep.
    into
        The same architecture with ``len(kept)`` classes; changed in place and returned.
    """
    if not isinstance(network, UNet) or not isinstance(into, UNet):
        raise RecipeError("only U-Nets can be folded to fewer classes", value=type(network).__name__)
    state, shapes = network.state_dict(), into.state_dict()
    shared = {key: value for key, value in state.items() if not key.startswith(("side.", "head."))}
    head_weight, head_bias = state["head.weight"].double()[list(kept)].flatten(1), state["head.bias"].double()[list(kept)]
    classes, count = state["side.0.weight"].shape[0], len(kept)
    folded: dict[str, Tensor] = {}
    bias = head_bias.clone()
    for level in range(len(network.side)):
        block = head_weight[:, level * classes : (level + 1) * classes]
        weight = state[f"side.{level}.weight"].double()
        folded[f"side.{level}.weight"] = (block @ weight.flatten(1)).view(count, *weight.shape[1:])
        folded[f"side.{level}.bias"] = torch.zeros(count)
        bias += block @ state[f"side.{level}.bias"].double()
    folded["head.weight"] = torch.eye(count).repeat(1, len(network.side)).view(shapes["head.weight"].shape)
    folded["head.bias"] = bias
    into.load_state_dict(shared | {key: value.to(shapes[key].dtype) for key, value in folded.items()})
    return into


@torch.no_grad()
def favour(network: nn.Module, wins_from: Mapping[int, float]) -> nn.Module:
    """Let classes win from less (or more) than even odds: the bias of the layer ``head`` rises by log((1 - p) / p), in place.

    The expected Dice of an organ is largest where everything above half of that Dice is taken (Lipton et al., 2014), so an
    organ that is found with Dice 0.5 should win from 0.25 on.

    Raises
    ------
    RecipeError
        If the network has no single last layer.
    """
    head = getattr(network, "head", None)
    if wins_from and (not isinstance(head, nn.Conv3d) or head.bias is None):
        raise RecipeError("wins_from needs a network with one last layer", value=type(network).__name__)
    for label, probability in wins_from.items():
        cast(Any, head).bias[label] += math.log((1 - probability) / probability)
    return network
