"""The cheap form of the fused head is the concatenation that the count implies."""

from __future__ import annotations

import pytest
import torch

from agseg.models.registry import build


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("family", ["unet", "attention-unet"])
def test_fused_logits_are_the_head_over_the_concatenated_side_maps(family, dims):
    torch.manual_seed(2)
    network = build(family, {"dims": dims, "width": 2, "classes": 3}).eval()
    x = torch.randn(2, 1, *(32, 16, 16)[:dims])
    with torch.no_grad():
        sides = network.sides(x)
        assert [side.shape for side in sides] == [(2, 3, *x.shape[2:])] * 4
        torch.testing.assert_close(network(x), network.head(torch.cat(sides, dim=1)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.heads(x)[0], network(x))
        assert all(torch.equal(a, b) for a, b in zip(network.heads(x)[1:], sides, strict=True))


@pytest.mark.parametrize("gating", ["center", "proj", "proj_half"])
def test_attention_is_what_forward_applies(gating):
    """A gate forced shut, seen closed in ``attention``, makes the output blind to what it gates."""
    torch.manual_seed(4)
    network = build("attention-unet", {"dims": 2, "width": 2, "gating": gating}).eval()
    x = torch.randn(1, 1, 32, 32)
    found = network.attention(x)
    assert [tuple(alpha.shape) for alpha in found.values()] == [(1, 2, 8, 8), (1, 2, 4, 4), (1, 2, 2, 2)]
    assert list(found) == ["gate1", "gate2", "gate3"]
    with torch.no_grad():
        for gate in network.gate["1"].gates:
            gate.psi.bias.fill_(-100.0)
        assert network.attention(x)["gate1"].max() < 1e-6
        shut = network(x)
        network.gate["1"].gates[0].project[0].weight.mul_(3.0)
        torch.testing.assert_close(network(x), shut)


def test_gates_follow_the_network_at_every_coarser_level():
    """Coefficients of the finer gates depend on the gated decoder, not on an ungated shortcut."""
    torch.manual_seed(4)
    network = build("attention-unet", {"dims": 2, "width": 2}).eval()
    x = torch.randn(1, 1, 32, 32)
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for gate in network.gate.values():
            for one in gate.gates:
                one.psi.weight.normal_()
        for name, gate in network.gate.items():
            gate.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: module.coefficients(*inputs)}))
        network(x)
        for name, alpha in network.attention(x).items():
            torch.testing.assert_close(alpha, seen[name.removeprefix("gate")])
