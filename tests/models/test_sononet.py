"""Laws of the scan-plane classifiers."""

from __future__ import annotations

import pytest
import torch

from agseg.models.registry import build
from agseg.models.sononet import AGSononetMode, FlowGate


def test_classification_gates_sum_to_one():
    network = build("ag-sononet", {"base": 2}).eval()
    found = network.attention(torch.randn(3, 1, 64, 48))
    assert {name: tuple(alpha.shape) for name, alpha in found.items()} == {"gate11": (3, 1, 16, 12), "gate14": (3, 1, 8, 6)}
    for alpha in found.values():
        torch.testing.assert_close(alpha.sum(dim=(1, 2, 3)), torch.ones(3))


def test_constant_scores_give_the_uniform_map_and_finite_gradients():
    gate = FlowGate(in_channels=2, gating_channels=2, inter_channels=2)
    torch.nn.init.zeros_(gate.psi.weight)
    x = torch.randn(1, 2, 4, 6, requires_grad=True)
    alpha = gate.coefficients(x, torch.randn(1, 2, 2, 3))
    torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / 24))
    (alpha * x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_attended_vector_is_the_weighted_sum():
    gate = FlowGate(in_channels=2, gating_channels=3, inter_channels=4)
    x, g = torch.randn(2, 2, 4, 6), torch.randn(2, 3, 2, 3)
    torch.testing.assert_close(gate(x, g), torch.einsum("bchw,bhw->bc", x, gate.coefficients(x, g)[:, 0]))


def test_mean_mode_averages_softmaxes_not_logits():
    network = build("ag-sononet", {"base": 2, "mode": "mean"}).eval()
    x = torch.randn(2, 1, 32, 32)
    expected = torch.stack([score.softmax(1) for score in network.scores(x)]).mean(0)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("mode", list(AGSononetMode))
def test_class_activation_of_layer_17_averages_to_its_heads_share(mode):
    network = build("ag-sononet", {"base": 2, "mode": mode}).eval()
    x = torch.randn(2, 1, 32, 48)
    layer17 = network.trunk(x)[2].mean(dim=(2, 3))
    weight = network.head[2].weight if len(network.head) else network.final.weight[:, 24:]
    torch.testing.assert_close(network.class_activation(x).mean(dim=(2, 3)), layer17 @ weight.T, rtol=1e-4, atol=1e-5)


def test_a_trained_trunk_moves_from_one_mode_to_another():
    """AG-Sononet-FT starts from AG-Sononet: trunk and gates have the same names and shapes in every mode."""
    shared = [
        {
            key: value.shape
            for key, value in build("ag-sononet", {"base": 2, "mode": mode}).state_dict().items()
            if "gate" in key or "trunk" in key
        }
        for mode in AGSononetMode
    ]
    assert all(keys == shared[0] for keys in shared)
    sononet = {key for key in build("sononet", {"base": 2}).state_dict() if key.startswith("trunk")}
    assert sononet == {key for key in shared[0] if key.startswith("trunk")}
