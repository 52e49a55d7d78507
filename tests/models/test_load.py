"""Strict loading: it loads what fits, and lists what does not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from agseg.errors import WeightsError
from agseg.models.load import load_strict
from agseg.models.registry import build


@pytest.fixture
def network():
    return build("unet", {"dims": 2, "width": 2})


def test_missing_unexpected_and_misshapen_keys_are_all_listed(network):
    state = dict(network.state_dict())
    del state["head.bias"]
    state["stranger"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(1, 2, 3)
    with pytest.raises(WeightsError) as caught:
        load_strict(network, state)
    sentence = caught.value.sentence()
    for part in ("UNet", "1 missing (head.bias)", "1 unexpected (stranger)", "head.weight (1, 2, 3) for (4, 16, 1, 1)"):
        assert part in sentence


def test_refused_weights_leave_the_network_as_it_was(network):
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state = {key: torch.ones_like(tensor) for key, tensor in before.items()}
    del state["head.bias"]
    with pytest.raises(WeightsError):
        load_strict(network, state)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_long_lists_are_cut_with_the_number_left_out(network):
    with pytest.raises(WeightsError, match=r"missing \(.* and \d+ more\)"):
        load_strict(network, {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip, not safetensors", b"\xff" * 64])
def test_files_that_are_not_safetensors_are_refused(network, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_strict(network, path)
    assert caught.value.path == path


def test_absent_file_is_a_weights_error(network, tmp_path):
    with pytest.raises(WeightsError):
        load_strict(network, tmp_path / "nothing.safetensors")


def test_one_changed_tensor_is_seen_in_the_output(network, tmp_path):
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state["head.bias"] += 1
    save_file(state, tmp_path / "weights.safetensors")
    x = torch.randn(1, 1, 16, 16)
    other = load_strict(build("unet", {"dims": 2, "width": 2}), tmp_path / "weights.safetensors").eval()
    with torch.no_grad():
        torch.testing.assert_close(other(x), network.eval()(x) + 1, rtol=1e-5, atol=1e-5)
