"""The gate's equations, and what its coefficients do to gradients."""

from __future__ import annotations

import pytest
import torch

from agseg.models.attention_gate import AttentionGate, ConcatenatingGate, DualGate, MultiGate, SameGridGate
from agseg.models.blocks import resize

torch.manual_seed(0)


def double(module: torch.nn.Module) -> torch.nn.Module:
    return module.double().eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_obeys_equation_3_of_attention_gated_networks(dims):
    """d(alpha f) / d phi = alpha df/dphi + (d alpha / d phi) f, for x = f(input; phi), against finite differences.

    The first term is what a gate does to the gradient of background positions: it is scaled with alpha.
    """
    grid = (4, 6, 4)[:dims]
    convolution = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    layer = double(convolution(1, 3, 3, padding=1))
    gate = double(AttentionGate(dims, in_channels=3, gating_channels=5))
    image = torch.randn(1, 1, *grid, dtype=torch.float64)
    signal = torch.randn(1, 5, *(side // 2 for side in grid), dtype=torch.float64)
    weigh = torch.randn(1, 3, *grid, dtype=torch.float64)

    def alpha_of(x: torch.Tensor) -> torch.Tensor:
        return resize(gate.coefficients(x, signal), grid)

    def gated() -> torch.Tensor:
        x = layer(image)
        return (weigh * alpha_of(x) * x).sum()

    whole = torch.autograd.grad(gated(), layer.weight)[0]
    x = layer(image)
    scaled = torch.autograd.grad((weigh * alpha_of(x).detach() * x).sum(), layer.weight, retain_graph=True)[0]
    steered = torch.autograd.grad((weigh * alpha_of(x) * x.detach()).sum(), layer.weight)[0]
    torch.testing.assert_close(whole, scaled + steered, rtol=1e-10, atol=1e-12)

    step, numeric = 1e-6, torch.zeros_like(whole)
    with torch.no_grad():
        for index in range(layer.weight.numel()):
            weight = layer.weight.view(-1)
            weight[index] += step
            above = gated()
            weight[index] -= 2 * step
            numeric.view(-1)[index] = (above - gated()) / (2 * step)
            weight[index] += step
    torch.testing.assert_close(whole, numeric, rtol=1e-5, atol=1e-7)


def test_closed_gate_lets_no_gradient_through_and_an_open_one_all_of_it():
    gate = double(AttentionGate(2, in_channels=3, gating_channels=5))
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(1, 5, 2, 2, dtype=torch.float64)
    torch.nn.init.zeros_(gate.psi.weight)
    for bias, expected in ((-60.0, 0.0), (60.0, 1.0)):
        torch.nn.init.constant_(gate.psi.bias, bias)
        gradient = torch.autograd.grad((resize(gate.coefficients(x, g), (4, 4)) * x).sum(), x)[0]
        torch.testing.assert_close(gradient, torch.full_like(gradient, expected))


def test_gate_is_equations_1_and_2():
    gate = double(AttentionGate(2, in_channels=2, gating_channels=3))
    x, g = torch.randn(1, 2, 2, 2, dtype=torch.float64), torch.randn(1, 3, 1, 1, dtype=torch.float64)
    theta = torch.einsum("ocij,cij->o", gate.theta.weight, x[0])
    phi = gate.phi.weight[:, :, 0, 0] @ g[0, :, 0, 0] + gate.phi.bias
    q = gate.psi.weight[0, :, 0, 0] @ torch.relu(theta + phi) + gate.psi.bias
    torch.testing.assert_close(gate.coefficients(x, g).flatten(), torch.sigmoid(q))


def test_anu_gate_is_equations_1_to_3():
    gate = double(SameGridGate(2, channels=2))
    f, g = torch.randn(1, 2, 1, 1, dtype=torch.float64), torch.randn(1, 2, 1, 1, dtype=torch.float64)
    scale = (1 + 1e-5) ** -0.5
    joint = [part.weight[:, :, 0, 0] @ z[0, :, 0, 0] + part.bias for part, z in ((gate.of_f[0], f), (gate.of_g[0], g))]
    theta = gate.theta[0]
    q = (theta.weight[0, :, 0, 0] @ torch.relu(scale * sum(joint)) + theta.bias) * scale
    torch.testing.assert_close(gate(f, g), f * torch.sigmoid(q))


def test_gates_resample_what_does_not_fit_and_are_stacked():
    gates = MultiGate(3, in_channels=4, gating_channels=8, gates=2).eval()
    x, g = torch.randn(2, 4, 8, 4, 4), torch.randn(2, 8, 2, 1, 1)
    assert gates.coefficients(x, g).shape == (2, 2, 4, 2, 2)
    assert gates(x, g).shape == x.shape


def test_a_concatenating_gate_is_the_formula_of_the_slides():
    """alpha_i = sigmoid(W^T [x_i, g_i] + b) at every position, with g brought to x's grid; x^ = alpha x."""
    gate = double(ConcatenatingGate(2, in_channels=3, gating_channels=5))
    gate.project = torch.nn.Identity()
    x, g = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 2, 3, dtype=torch.float64)
    weight, bias = gate.joint.weight.flatten(), gate.joint.bias
    side_by_side = torch.cat([x, resize(g, (4, 6))], dim=1)
    alpha = torch.sigmoid(torch.einsum("c,bcij->bij", weight, side_by_side) + bias)
    torch.testing.assert_close(gate.coefficients(x, g)[:, 0], alpha)
    torch.testing.assert_close(gate(x, g), x * alpha[:, None])


def test_a_dual_gate_scales_positions_and_channels():
    gate = double(DualGate(2, in_channels=3, gating_channels=5))
    gate.project = torch.nn.Identity()
    x, g = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 2, 3, dtype=torch.float64)
    where, which = gate.coefficients(x, g), gate.channel_coefficients(x, g)
    torch.testing.assert_close(gate(x, g), x * where * which[:, :, None, None])
    assert which.shape == (2, 3)
    gate.open_gate()
    assert gate.channel_coefficients(x, g).min() > 0.9
    assert gate.coefficients(x, g).min() > 0.9
