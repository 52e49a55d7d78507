"""ANU-Net: UNet++ with an attention gate on every edge inside a row, batch norm and deep supervision.

Source: Li et al., ANU-Net: attention-based nested U-Net (2020), section 3, equations (1) to (4) and Figure 13 (pruning):

    X[i][j] = Phi([Ag(X[i][0]), ..., Ag(X[i][j-1]), Up(X[i+1][j-1])])

Equation (4) prints a sum but the text says concatenation, which is what stands here. "Deconvolution" is a transposed
convolution 2x2(x2). No self-similar network has the four printed counts; ours lie within 3 % of them
(docs/networks.md, "Counts and cost").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from agseg.models.attention_gate import SameGridGate
from agseg.models.blocks import initialise, level_widths
from agseg.models.unetpp import UNetPlusPlus


class ANUNet(UNetPlusPlus):
    """Attention-gated nested U-Net; L1 to L4 are its depths 1 to 4.

    Parameters
    ----------
    dims, in_channels, classes, width, widths, depth
        As for :class:`~agseg.models.unetpp.UNetPlusPlus`. The head of depth d of the full network and a network built at
        depth d with the same weights give the same logits.
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
    ) -> None:
        super().__init__(
            dims=dims,
            in_channels=in_channels,
            classes=classes,
            width=width,
            widths=widths,
            depth=depth,
            norm=True,
            deep_supervision=True,
        )
        f = level_widths(width, widths)
        edges = [(i, k, j) for i, j in self._order() for k in range(j)]
        self.gate = nn.ModuleDict({f"x{i}{k}_x{i}{j}": SameGridGate(dims, channels=f[i]) for i, k, j in edges})
        initialise(self)
        for gate in self.gate.values():
            cast(SameGridGate, gate).open_gate()

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients for an image: ``"x00_x01"`` (from node to node) to ``[B, 1, *gate grid]`` in [0, 1]."""
        found: dict[str, Tensor] = {}
        self._nodes(x, found)
        return found

    def _passed(self, edge: str, earlier: Tensor, up: Tensor, seen: dict[str, Tensor] | None) -> Tensor:
        alpha = cast(SameGridGate, self.gate[edge]).coefficients(earlier, up)
        if seen is not None:
            seen[edge] = alpha
        return earlier * alpha
