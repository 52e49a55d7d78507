"""One base test on every architecture at a tiny width: sizes, gradients, saving, folding, determinism, gates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from agseg.models.catalogue import FAMILIES, Facts, facts
from agseg.models.fold import fold_batch_norm
from agseg.models.load import load_strict
from agseg.models.registry import build

OPEN = 0.95


@dataclass(frozen=True)
class Tiny:
    """A network small enough to test: a family, its arguments, and two legal grids."""

    family: str
    config: dict[str, Any] = field(default_factory=dict)
    grids: tuple[tuple[int, ...], ...] = ((16, 32), (48, 16))
    open_gates: bool = False

    @property
    def id(self) -> str:
        return "-".join([self.family, *(f"{key}={value}" for key, value in self.config.items())])

    @property
    def facts(self) -> Facts:
        return facts(self.family, self.config)

    @property
    def is_classifier(self) -> bool:
        return self.facts.classifies_frames


VOLUMES = ((16, 32, 16), (16, 16, 48))
FRAMES = ((32, 48), (64, 32))
TINY_WIDTHS = [2, 3, 4, 5, 6]

NNUNET = {
    "classes": 3,
    "features_per_stage": [2, 3, 4],
    "kernel_sizes": [3, 3, 3],
    "strides": [1, 2, 2],
    "n_conv_per_stage_decoder": [1, 2],
}

TINY = [
    Tiny("unet", {"dims": 2, "width": 2}),
    Tiny("unet", {"dims": 3, "widths": TINY_WIDTHS, "in_channels": 2}, VOLUMES),
    Tiny("attention-unet", {"dims": 2, "width": 2}, open_gates=True),
    Tiny("attention-unet", {"dims": 3, "width": 2, "classes": 2}, VOLUMES, open_gates=True),
    Tiny("attention-unet", {"dims": 3, "width": 2, "gating": "proj", "gates": 1}, VOLUMES, open_gates=True),
    Tiny("attention-unet", {"dims": 2, "width": 2, "gating": "proj_half"}, open_gates=True),
    Tiny("attention-unet", {"dims": 3, "width": 2, "gate_kind": "concatenating"}, VOLUMES, open_gates=True),
    Tiny("attention-unet", {"dims": 2, "width": 2, "gate_kind": "dual"}, open_gates=True),
    Tiny("anu-net", {"dims": 2, "width": 2}, open_gates=True),
    Tiny("anu-net", {"dims": 3, "widths": TINY_WIDTHS, "classes": 3}, VOLUMES, open_gates=True),
    Tiny("anu-net", {"dims": 3, "width": 2, "depth": 2}, ((4, 12, 8), (16, 8, 8)), open_gates=True),
    Tiny("unetpp", {"dims": 2, "width": 2}),
    Tiny("unetpp", {"dims": 3, "width": 2, "norm": True, "deep_supervision": True, "depth": 3}, ((8, 8, 16), (24, 8, 8))),
    Tiny("r2unet", {"dims": 2, "width": 2}),
    Tiny("r2unet", {"dims": 3, "width": 2, "gated": True}, VOLUMES),
    Tiny("r2unet", {"dims": 2, "width": 2, "steps": 0}),
    Tiny("r2unet", {"dims": 2, "width": 2, "residual": False}),
    Tiny("focusnet", {"dims": 2, "width": 4}),
    Tiny("focusnet", {"dims": 3, "widths": TINY_WIDTHS, "in_channels": 1}, VOLUMES),
    Tiny("focusnet-released", {"dims": 2, "width": 8}),
    Tiny("focusnet-released", {"dims": 3, "width": 4, "classes": 2}, VOLUMES),
    Tiny("sononet", {"base": 2}, FRAMES),
    Tiny("sononet-original", {"base": 2, "classes": 5}, FRAMES),
    *(Tiny("ag-sononet", {"base": 2, "mode": mode}, FRAMES) for mode in ("mean", "concat", "deep_sup", "ft", "ft_concat")),
    Tiny("obelisk-hybrid", {}, ((16, 32, 24), (32, 16, 16))),
    Tiny(
        "monai-unet",
        {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [2, 4, 8], "strides": [2, 2]},
        VOLUMES,
    ),
    Tiny("monai-segresnet", {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 3}, VOLUMES),
    Tiny("nnunet-plain", {"dims": 3, **NNUNET, "n_conv_per_stage": [1, 2, 1], "in_channels": 2}, VOLUMES),
    Tiny("nnunet-resenc", {"dims": 2, **NNUNET, "n_blocks_per_stage": [1, 2, 1], "norm": "batch"}),
    Tiny("monai-vnet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}, ((32, 32), (16, 48))),
]


@pytest.fixture(params=TINY, ids=lambda tiny: tiny.id)
def tiny(request) -> Tiny:
    if request.param.family.startswith("monai-"):
        pytest.importorskip("monai", reason="the monai extra is not installed")
    return request.param


def built(tiny: Tiny) -> nn.Module:
    torch.manual_seed(7)
    return build(tiny.family, tiny.config)


def image(tiny: Tiny, grid: tuple[int, ...], *, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, tiny.facts.in_channels, *grid, generator=torch.Generator().manual_seed(3))


def with_statistics(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network in evaluation mode with the batch statistics of ``x``, as after training: activations keep their scale."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    return network.eval()


def classes_of(tiny: Tiny) -> int:
    return tiny.facts.classes


def test_every_family_is_tested():
    assert {tiny.family for tiny in TINY} == set(FAMILIES)


@pytest.mark.slow
def test_the_catalogue_says_what_the_network_is(tiny):
    network = built(tiny)
    assert network.size_multiple == tiny.facts.size_multiple
    assert getattr(network, "full_precision_only", False) == tiny.facts.full_precision_only
    with torch.no_grad():
        assert network.eval()(image(tiny, tiny.grids[0])).shape[1] == tiny.facts.classes
    gates = network.attention(image(tiny, tiny.grids[0])) if hasattr(network, "attention") else {}
    assert bool(gates) == tiny.facts.has_gates
    if tiny.facts.deepest > 1:
        cut = build(tiny.family, {**tiny.config, "depth": tiny.facts.deepest - 1})
        load_strict(cut, network.state_dict(), prune=True)


def test_any_legal_size_gives_scores_of_the_same_grid(tiny):
    network = built(tiny).eval()
    for grid in tiny.grids:
        assert all(side % network.size_multiple == 0 for side in grid)
        with torch.no_grad():
            scores = network(image(tiny, grid))
        expected = (2, classes_of(tiny)) if tiny.is_classifier else (2, classes_of(tiny), *grid)
        assert tuple(scores.shape) == expected
        assert torch.isfinite(scores).all()
        if tiny.is_classifier:
            torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_every_parameter_gets_a_gradient(tiny):
    # In evaluation mode: in training mode a bias before a batch norm has none, and that is right.
    x = image(tiny, tiny.grids[0])
    network = with_statistics(built(tiny), x)
    scores = network.scores(x) if tiny.is_classifier else outputs(network, x)
    torch.stack([(score.float() * torch.randn_like(score)).sum() for score in scores]).sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    nothing = [name for name, parameter in network.named_parameters() if torch.count_nonzero(parameter.grad) == 0]
    # A rectifier can be dead on one random image, never a whole layer's weight that reaches the output.
    assert len(nothing) <= len(list(network.parameters())) // 10, nothing


def outputs(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return list(network.heads(x)) if hasattr(network, "heads") else [network(x)]


@pytest.mark.slow
def test_saved_and_loaded_networks_are_equal(tiny, tmp_path):
    x = image(tiny, tiny.grids[0])
    network = with_statistics(built(tiny), x)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    other = load_strict(build(tiny.family, tiny.config), tmp_path / "weights.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(other(x), network(x))


@pytest.mark.slow
def test_evaluation_is_deterministic_and_building_follows_the_seed(tiny):
    first, second = built(tiny).eval(), built(tiny).eval()
    x = image(tiny, tiny.grids[0])
    with torch.no_grad():
        assert torch.equal(first(x), first(x))
        assert torch.equal(first(x), second(x))


@pytest.mark.slow
def test_samples_of_a_batch_do_not_touch_each_other(tiny):
    x = image(tiny, tiny.grids[0])
    network = with_statistics(built(tiny), x)
    with torch.no_grad():
        together, alone = network(x)[1:], network(x[1:])
    # Batch norms over few voxels enlarge rounding; a sample that leaks into another changes far more.
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * max(1.0, alone.abs().max().item()))


@pytest.mark.slow
def test_folding_batch_norm_changes_nothing(tiny):
    x = image(tiny, tiny.grids[0])
    network = with_statistics(built(tiny), x)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_batch_norm(network)
    with torch.no_grad():
        expected = network(x)
        # Rounding differs with the number of threads; a norm that was not folded changes far more.
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4 * max(1.0, expected.abs().max().item()))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


GATED = [tiny for tiny in TINY if tiny.facts.has_gates]


@pytest.mark.parametrize("tiny", GATED, ids=lambda tiny: tiny.id)
def test_gates_lie_between_zero_and_one(tiny):
    x = image(tiny, tiny.grids[0])
    network = with_statistics(built(tiny), x)
    with torch.no_grad():
        found = network.attention(5 * x)
    assert found
    for alpha in found.values():
        assert alpha.shape[0] == 2
        assert alpha.ndim == 2 + len(tiny.grids[0])
        assert 0 <= alpha.min() <= alpha.max() <= 1


@pytest.mark.parametrize("tiny", [tiny for tiny in TINY if tiny.open_gates], ids=lambda tiny: tiny.id)
def test_gates_start_open(tiny):
    for seed, training in itertools.product(range(2), (False, True)):
        torch.manual_seed(seed)
        network = build(tiny.family, tiny.config).train(training)
        with torch.no_grad():
            assert all(alpha.min() >= OPEN for alpha in network.attention(image(tiny, tiny.grids[0])).values())


@pytest.mark.parametrize("tiny", [tiny for tiny in TINY if tiny.is_classifier], ids=lambda tiny: tiny.id)
def test_classifiers_weight_every_score(tiny):
    network = built(tiny).eval()
    x = image(tiny, tiny.grids[0])
    assert len(network.scores(x)) == len(network.loss_weights)
    activation = network.class_activation(x)
    assert tuple(activation.shape) == (2, classes_of(tiny), *(side // 16 for side in tiny.grids[0]))
