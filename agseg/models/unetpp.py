"""UNet++: the nested U-Net that ANU-Net builds on, and the pruning that both share.

Source: Zhou et al., UNet++ (2018), as the baseline of Li et al., ANU-Net (2020), section 3.1. Nodes
X[i][j] stand at depth i and column j; X[i][0] is the encoder, and

    X[i][j] = Phi([X[i][0], ..., X[i][j-1], Up(X[i+1][j-1])])

A network of depth d has exactly the nodes with i + j <= d. The default is the public UNet++ without batch norm and with one
head, which is the control for our counting: 9,041,601 parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from agseg.errors import UsageError
from agseg.models.blocks import DoubleConv, conv, conv_transpose, initialise, level_widths, max_pool

_NODE = re.compile(r"x(\d)(\d)")


def _name(i: int, j: int) -> str:
    return f"x{i}{j}"


def _deepest_node(key: str) -> int:
    """The largest i + j among the nodes that a parameter's name mentions."""
    return max((int(i) + int(j) for i, j in _NODE.findall(key)), default=0)


def prune_state_dict(state: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """Those tensors of a deeply supervised nested network that its part of this depth has."""
    return {key: tensor for key, tensor in state.items() if _deepest_node(key) <= depth}


class UNetPlusPlus(nn.Module):
    """Nested U-Net, cut off at a depth.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels, classes
        Image channels; logit channels (1: one foreground class against a sigmoid).
    width, widths
        Channels of row 0, doubled per row; or those of every row. Rows below ``depth`` are not built.
    depth
        1 to 4 (one less than the rows there are widths for).
    norm
        Whether the blocks hold batch norms.
    deep_supervision
        A head on every X[0][1..depth], so that the network can be cut off at a smaller depth; else on the last only.
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 1,
        classes: int = 1,
        width: int = 32,
        widths: Sequence[int] | None = None,
        depth: int = 4,
        norm: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        f = level_widths(width, widths)
        if not 1 <= depth < len(f):
            raise UsageError("a nested network of this depth does not exist", value=depth, expected=f"1 to {len(f) - 1}")
        self.depth = depth
        self.size_multiple = 2**depth
        self.pool = max_pool(dims)
        self.node = nn.ModuleDict()
        self.up = nn.ModuleDict()
        for i, j in self._order():
            inputs = (f[i - 1] if i else in_channels) if j == 0 else (j + 1) * f[i]
            self.node[_name(i, j)] = DoubleConv(dims, inputs, f[i], norm=norm)
            if j:
                self.up[_name(i, j)] = conv_transpose(dims, f[i + 1], f[i])
        headed = range(1, depth + 1) if deep_supervision else (depth,)
        self.head = nn.ModuleDict({_name(0, j): conv(dims, f[0], classes, kernel=1) for j in headed})
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]`` of the head at this network's depth; sides are multiples of ``size_multiple``."""
        last = _name(0, self.depth)
        logits: Tensor = self.head[last](self._nodes(x)[last])
        return logits

    def heads(self, x: Tensor) -> list[Tensor]:
        """The logits of every head, shallowest first; the last is what :meth:`forward` returns."""
        nodes = self._nodes(x)
        return [head(nodes[name]) for name, head in self.head.items()]

    def is_beyond(self, key: str) -> bool:
        """Whether a parameter of the uncut network lies beyond this network's depth."""
        return _deepest_node(key) > self.depth

    def _order(self) -> list[tuple[int, int]]:
        """Nodes in an order in which each comes after what it needs."""
        return [(i, j) for j in range(self.depth + 1) for i in range(self.depth + 1 - j)]

    def _nodes(self, x: Tensor, seen: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The maps of row 0 by name; those of deeper rows are let go of once no later node needs them.

        ``seen`` takes the gates' coefficients, where there are gates.
        """
        maps: dict[str, Tensor] = {}
        for i, j in self._order():
            if j == 0:
                maps[_name(i, 0)] = self.node[_name(i, 0)](self.pool(maps[_name(i - 1, 0)]) if i else x)
                continue
            up = self.up[_name(i, j)](maps[_name(i + 1, j - 1)])
            row = [self._passed(f"{_name(i, k)}_{_name(i, j)}", maps[_name(i, k)], up, seen) for k in range(j)]
            maps[_name(i, j)] = self.node[_name(i, j)](torch.cat([*row, up], dim=1))
            del row, up
            if i + j == self.depth:
                # The last use of row i + 1, which ends one column earlier.
                for k in range(j):
                    del maps[_name(i + 1, k)]
        return maps

    def _passed(self, edge: str, earlier: Tensor, up: Tensor, seen: dict[str, Tensor] | None) -> Tensor:
        """What a node sees of an earlier node of its row, over the edge between them."""
        return earlier
