"""Pruning: a network built at depth d is the full network's head d, and nothing else of it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from agseg.errors import WeightsError
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.models.unetpp import prune_state_dict

DEPTHS = (1, 2, 3, 4)


def full_network(dims: int, *, classes: int = 2) -> torch.nn.Module:
    torch.manual_seed(5)
    network = build("anu-net", {"dims": dims, "width": 4, "classes": classes})
    network.train()(torch.randn(2, 1, *[32] * dims))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("depth", DEPTHS)
def test_network_of_depth_d_is_head_d_of_the_full_network(dims, depth, tmp_path):
    full = full_network(dims)
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    config = {"dims": dims, "width": 4, "classes": 2, "depth": depth}
    pruned = load_strict(build("anu-net", config), tmp_path / "full.safetensors", prune=True).eval()
    x = torch.randn(1, 1, *[16] * dims)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), full.heads(x)[depth - 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pruned.heads(x), full.heads(x)[:depth], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_network_of_depth_d_has_exactly_the_nodes_up_to_d(depth):
    network = build("anu-net", {"width": 2, "depth": depth})
    expected = {f"x{i}{j}" for i in range(5) for j in range(5) if i + j <= depth}
    assert set(network.node) == expected
    assert set(network.up) == {name for name in expected if name[2] != "0"}
    assert set(network.head) == {f"x0{j}" for j in range(1, depth + 1)}
    assert len(network.gate) == sum(int(name[2]) for name in expected)


def test_what_lies_beyond_the_depth_is_never_read(tmp_path, monkeypatch):
    import safetensors

    full = full_network(2)
    path = tmp_path / "full.safetensors"
    save_file(full.state_dict(), path)
    read: list[str] = []
    real = safetensors.safe_open

    class Watched:
        def __init__(self, *args, **kwargs):
            self.context = real(*args, **kwargs)

        def __enter__(self):
            self.file = self.context.__enter__()
            return self

        def __exit__(self, *error):
            return self.context.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_tensor(self, key):
            read.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(safetensors, "safe_open", Watched)
    pruned = load_strict(build("anu-net", {"width": 4, "classes": 2, "depth": 2}), path, prune=True)
    assert set(read) == set(pruned.state_dict())
    assert set(prune_state_dict(full.state_dict(), depth=2)) == set(pruned.state_dict())


def test_deeper_weights_are_refused_unless_pruning_is_asked_for():
    pruned, weights = build("anu-net", {"width": 4, "classes": 2, "depth": 2}), full_network(2).state_dict()
    with pytest.raises(WeightsError, match=r"unexpected.*x03|unexpected.*x30"):
        load_strict(pruned, weights)
    with pytest.raises(WeightsError, match="unexpected"):
        load_strict(pruned, {**weights, "stranger": torch.zeros(1)}, prune=True)


def test_shallower_weights_are_refused_with_their_missing_keys():
    weights = prune_state_dict(full_network(2).state_dict(), depth=2)
    with pytest.raises(WeightsError, match=r"missing.*x30"):
        load_strict(build("anu-net", {"width": 4, "classes": 2}), weights, prune=True)


@pytest.mark.slow
def test_depths_are_ordered_in_parameters_and_operations():
    networks = [build("anu-net", {"width": 8, "depth": depth}).eval() for depth in DEPTHS]
    parameters = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert parameters == sorted(set(parameters))
    operations = []
    for network in networks:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.randn(1, 1, 64, 64))
        operations.append(counter.get_total_flops())
    assert operations == sorted(set(operations))


@pytest.mark.parametrize("depth", DEPTHS)
def test_counts_lie_within_three_percent_of_print(depth):
    printed = {1: 0.1038, 2: 0.5134, 3: 2.1918, 4: 8.9506}
    with torch.device("meta"):
        count = sum(p.numel() for p in build(f"anu-net-l{depth}").parameters())
    assert count / 1e6 == pytest.approx(printed[depth], rel=0.03)
