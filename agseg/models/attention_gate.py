"""The additive attention gates of Attention U-Net (segmentation form), two other kinds, and ANU-Net's on one common grid.

Source: Schlemper, Oktay et al., Attention Gated Networks (2019), section 2.2, equations (1) and (2):

    q_i = psi^T relu(W_x^T x_i + W_g^T g_i + b_xg) + b_psi,   alpha_i = sigmoid(q_i),   x^_i = alpha_i x_i

Divergences from the text, all fixed by the published parameter counts and the public code (docs/networks.md, "Where text,
code and tables disagree"): W_x is 2x2(x2) with stride 2 and without bias, so that it carries x onto g's grid; alpha is
computed there and resampled back to x's grid; the gated x passes a 1x1(x1) convolution with batch norm.
"""

from __future__ import annotations

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.models.blocks import batch_norm, conv, resize

OPEN_GATE_BIAS = 3.0
"""Bias of psi at initialisation: sigmoid(3) = 0.953, gates start open ("pass through"); the public code starts near 0.57."""

OPEN_GATE_SPREAD = 1e-3
"""Standard deviation of psi's weights at initialisation: small, so that every position starts equally open."""


class AttentionGate(nn.Module):
    """One gate: scales every position of ``x`` with a coefficient computed from ``x`` and the coarser ``g``.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels
        Channels F of ``x``; also the intermediate channels.
    gating_channels
        Channels G of ``g``, whose grid is half of x's.
    """

    def __init__(self, dims: int, *, in_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.theta = conv(dims, in_channels, in_channels, kernel=2, stride=2, bias=False)
        # The text has one bias b_xg; the count puts it on W_g, where the sum gives the same function.
        self.phi = conv(dims, gating_channels, in_channels, kernel=1)
        self.psi = conv(dims, in_channels, 1, kernel=1)
        self.project = nn.Sequential(conv(dims, in_channels, in_channels, kernel=1), batch_norm(dims, in_channels))

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Alpha ``[B, 1, *grid of theta(x)]`` in [0, 1]."""
        projected = self.theta(x)
        joint = F.relu(projected + resize(self.phi(g), projected.shape[2:]))
        return torch.sigmoid(self.psi(joint))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Gated and projected ``x``, ``[B, F, *grid of x]``."""
        alpha = resize(self.coefficients(x, g), x.shape[2:])
        gated: Tensor = self.project(alpha * x)
        return gated

    def open_gate(self) -> None:
        """Let the gate start open at every position (the text asks for it; the public segmentation code does not do it)."""
        nn.init.normal_(self.psi.weight, 0.0, OPEN_GATE_SPREAD)  # type: ignore[arg-type]
        nn.init.constant_(self.psi.bias, OPEN_GATE_BIAS)  # type: ignore[arg-type]


class ConcatenatingGate(nn.Module):
    """One gate whose coefficients follow from ``x`` and ``g`` side by side, without a layer in between.

    Source: the slides on Attention U-Net (2025), "Attention Gate Calculation": alpha_i = sigmoid(W^T [x_i, g] + b). ``g`` is
    resampled to x's grid; the gated x passes the same 1x1(x1) convolution and batch norm as behind :class:`AttentionGate`.
    """

    def __init__(self, dims: int, *, in_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.joint = conv(dims, in_channels + gating_channels, 1, kernel=1)
        self.project = nn.Sequential(conv(dims, in_channels, in_channels, kernel=1), batch_norm(dims, in_channels))

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Alpha ``[B, 1, *grid of x]`` in [0, 1]."""
        return torch.sigmoid(self.joint(torch.cat([x, resize(g, x.shape[2:])], dim=1)))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Gated and projected ``x``, ``[B, F, *grid of x]``."""
        gated: Tensor = self.project(self.coefficients(x, g) * x)
        return gated

    def open_gate(self) -> None:
        """Let the gate start open at every position."""
        nn.init.normal_(self.joint.weight, 0.0, OPEN_GATE_SPREAD)  # type: ignore[arg-type]
        nn.init.constant_(self.joint.bias, OPEN_GATE_BIAS)  # type: ignore[arg-type]


class DualGate(ConcatenatingGate):
    """Where to look and which features: a coefficient per position, as before, times one per channel.

    Source: the slides on Attention U-Net (2025), "Dual Attention Mechanism", which name spatial and channel attention and print
    the concatenating formula alone. The channels' coefficients are the same formula on means over the grid: our choice.
    """

    def __init__(self, dims: int, *, in_channels: int, gating_channels: int) -> None:
        super().__init__(dims, in_channels=in_channels, gating_channels=gating_channels)
        self.channel = nn.Linear(in_channels + gating_channels, in_channels)

    def channel_coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """One factor per channel, ``[B, F]`` in [0, 1]."""
        means = torch.cat([x.flatten(2).mean(dim=2), g.flatten(2).mean(dim=2)], dim=1)
        return torch.sigmoid(self.channel(means))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Gated and projected ``x``, ``[B, F, *grid of x]``."""
        channels = self.channel_coefficients(x, g)
        scaled = x * channels.reshape(*channels.shape, *[1] * (x.ndim - 2))
        gated: Tensor = self.project(self.coefficients(x, g) * scaled)
        return gated

    def open_gate(self) -> None:
        """Let positions and channels start open."""
        super().open_gate()
        nn.init.normal_(self.channel.weight, 0.0, OPEN_GATE_SPREAD)
        nn.init.constant_(self.channel.bias, OPEN_GATE_BIAS)


class GateKind(StrEnum):
    """How a gate on a skip connection computes its coefficients."""

    ADDITIVE = "additive"
    """:class:`AttentionGate`, the paper's."""
    CONCATENATING = "concatenating"
    """:class:`ConcatenatingGate`."""
    DUAL = "dual"
    """:class:`DualGate`."""


_GATES: dict[GateKind, type[AttentionGate] | type[ConcatenatingGate]] = {
    GateKind.ADDITIVE: AttentionGate,
    GateKind.CONCATENATING: ConcatenatingGate,
    GateKind.DUAL: DualGate,
}


class MultiGate(nn.Module):
    """Several gates on one skip connection, concatenated and fused by a 1x1(x1) convolution, batch norm and ReLU.

    Source: Attention Gated Networks (2019), section 2.2.1 (multi-dimensional attention).
    """

    def __init__(
        self, dims: int, *, in_channels: int, gating_channels: int, gates: int = 2, kind: GateKind = GateKind.ADDITIVE
    ) -> None:
        super().__init__()
        self.gates = nn.ModuleList(
            _GATES[kind](dims, in_channels=in_channels, gating_channels=gating_channels) for _ in range(gates)
        )
        self.fuse = nn.Sequential(
            conv(dims, gates * in_channels, in_channels, kernel=1), batch_norm(dims, in_channels), nn.ReLU(inplace=True)
        )

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Alpha of every gate, ``[B, gates, *grid]`` in [0, 1]; the grid is g's, or x's for gates that concatenate."""
        return torch.cat([gate.coefficients(x, g) for gate in self._each()], dim=1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """The skip connection after gating, ``[B, F, *grid of x]``."""
        fused: Tensor = self.fuse(torch.cat([gate(x, g) for gate in self.gates], dim=1))
        return fused

    def open_gate(self) -> None:
        """Let every gate start open."""
        for gate in self._each():
            gate.open_gate()

    def _each(self) -> list[AttentionGate | ConcatenatingGate]:
        return [gate for gate in self.gates if isinstance(gate, (AttentionGate, ConcatenatingGate))]


class SameGridGate(nn.Module):
    """The gate of ANU-Net and Attention R2U-Net: both inputs lie on the same grid, nothing is resampled.

    Source: Li et al., ANU-Net (2020), section 3.2, equations (1) and (2):

        F = relu(B(W_f f) + B(W_g g)),   alpha = sigmoid(B(W_theta F)),   output = alpha f

    with B a batch norm after each biased 1x1(x1) convolution. The equations print plain biases, the prose batch-normed inputs;
    both are there.

    Parameters
    ----------
    dims
        2 or 3.
    channels
        Channels of ``f`` and of ``g``; half as many in between.
    """

    def __init__(self, dims: int, *, channels: int) -> None:
        super().__init__()
        inter = max(channels // 2, 1)
        self.of_f = nn.Sequential(conv(dims, channels, inter, kernel=1), batch_norm(dims, inter))
        self.of_g = nn.Sequential(conv(dims, channels, inter, kernel=1), batch_norm(dims, inter))
        self.theta = nn.Sequential(conv(dims, inter, 1, kernel=1), batch_norm(dims, 1))

    def coefficients(self, f: Tensor, g: Tensor) -> Tensor:
        """Alpha ``[B, 1, *grid]`` in [0, 1] for ``f`` and ``g`` ``[B, channels, *grid]``."""
        return torch.sigmoid(self.theta(F.relu(self.of_f(f) + self.of_g(g))))

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        """``f`` scaled at every position."""
        return f * self.coefficients(f, g)

    def open_gate(self) -> None:
        """Let the gate start open; behind the last convolution stands a batch norm, so its scale and shift do it."""
        norm = self.theta[1]
        nn.init.constant_(norm.weight, OPEN_GATE_SPREAD)  # type: ignore[arg-type]
        nn.init.constant_(norm.bias, OPEN_GATE_BIAS)  # type: ignore[arg-type]
