"""Laws of the conversion: the same numbers under the network's names, and no file that runs code is ever obeyed."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
import torch
from local_servers import sha256, write_manifest
from safetensors.torch import load_file, save_file

from agseg.errors import Code, WeightsError
from agseg.models.load import load_strict
from agseg.models.registry import build
from agseg.weights.cache import WeightsCache
from agseg.weights.convert import from_monai, from_obelisk, from_sononet
from agseg.weights.manifest import Manifest


class Command:
    """Unpickled, it runs a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def sononet_arrays(rng, *, base=16):
    module = build("sononet16-original", {"base": base})
    arrays = []
    for layer in module.layers:
        kernel = layer[0].weight
        channels = kernel.shape[0]
        arrays.append(rng.normal(0, 0.05, tuple(kernel.shape)))
        arrays += [
            rng.normal(size=channels),
            rng.normal(size=channels),
            rng.normal(size=channels),
            rng.uniform(0.5, 4, channels),
        ]
    return [np.asarray(array, dtype=np.float32) for array in arrays]


def write_npz(path, arrays, *, order=None):
    names = [f"arr_{n}" for n in (order if order is not None else range(len(arrays)))]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, arrays[int(name[4:])], allow_pickle=True)


@pytest.mark.slow
def test_a_converted_sononet_layer_computes_what_lasagne_computes(tmp_path, rng):
    arrays = sononet_arrays(rng)
    write_npz(tmp_path / "net.npz", arrays)
    module = load_strict(build("sononet16-original", {}), from_sononet(tmp_path / "net.npz")).eval()
    for number in (0, 12, 13, 14):
        kernel, beta, gamma, mean, inverse_std = (torch.from_numpy(a).double() for a in arrays[5 * number : 5 * number + 5])
        x = torch.from_numpy(rng.normal(size=(1, kernel.shape[1], 6, 6))).double()
        plain = torch.nn.functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        axes = (1, -1, 1, 1)
        expected = gamma.view(axes) * (plain - mean.view(axes)) * inverse_std.view(axes) + beta.view(axes)
        found = module.double().layers[number](x)
        torch.testing.assert_close(found, expected if number == 14 else expected.relu(), rtol=1e-5, atol=1e-5)


def test_sononet_arrays_are_read_by_name_whatever_their_order(tmp_path, rng):
    arrays = sononet_arrays(rng)
    write_npz(tmp_path / "a.npz", arrays)
    write_npz(tmp_path / "b.npz", arrays, order=rng.permutation(len(arrays)))
    one, other = from_sononet(tmp_path / "a.npz"), from_sononet(tmp_path / "b.npz")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_sononet_archives_with_pickles_gaps_or_more_are_refused(tmp_path, rng):
    arrays = sononet_arrays(rng)
    write_npz(tmp_path / "few.npz", arrays[:-1])
    write_npz(tmp_path / "many.npz", [*arrays, arrays[0]])
    write_npz(tmp_path / "pickle.npz", [np.array([Command(tmp_path / "ran")], dtype=object), *arrays[1:]])
    (tmp_path / "none.npz").write_bytes(b"PK\x03\x04")
    for name in ("few", "many", "pickle", "none"):
        with pytest.raises(WeightsError):
            from_sononet(tmp_path / f"{name}.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}, lambda state: {"state_dict": state}])
def test_a_monai_state_dict_is_read_bare_or_wrapped(tmp_path, wrap):
    state = torch.nn.Conv3d(1, 2, 3).state_dict()
    torch.save(wrap(state), tmp_path / "model.pt")
    found = from_monai(tmp_path / "model.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("reader", [from_monai, from_obelisk])
def test_a_pickle_is_never_obeyed(tmp_path, reader):
    marker = tmp_path / "ran"
    torch.save({"weight": torch.zeros(2), "evil": Command(marker)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError):
        reader(tmp_path / "model.pt")
    assert not marker.exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"a": 1}, {"model": {"a": torch.zeros(1), "b": "text"}}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsError):
        from_monai(tmp_path / "model.pt")


def monai_entry(tmp_path):
    path = tmp_path / "model.pt"
    state = torch.nn.Conv3d(1, 2, 3).state_dict()
    torch.save(state, path)
    file = {"filename": "model.pt", "local": "model.pt", "sha256": sha256(path.read_bytes())}
    return Manifest.load(write_manifest(tmp_path, [file], format="monai-pt")).entry("site-net"), state


def test_a_conversion_is_made_once_and_checked_at_each_first_load(tmp_path, monkeypatch):
    entry, state = monai_entry(tmp_path)
    (path,) = WeightsCache(tmp_path / "home", offline=True).ensure(entry)
    found = load_file(path)
    assert all(torch.equal(found[key], state[key]) for key in state)
    monkeypatch.setattr("agseg.weights.convert.convert", None)  # a second conversion would fail
    assert WeightsCache(tmp_path / "home", offline=True).ensure(entry) == (path,)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError) as refused:
        WeightsCache(tmp_path / "home", offline=True).ensure(entry)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM


def test_a_digest_is_checked_before_the_file_is_opened(tmp_path, monkeypatch):
    entry, _ = monai_entry(tmp_path)
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes() + b"\0")
    monkeypatch.setattr("torch.load", None)  # opening it would fail otherwise
    with pytest.raises(WeightsError) as refused:
        WeightsCache(tmp_path / "home", offline=True).ensure(entry)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM


def test_a_sites_own_safetensors_are_used_where_they_are(tmp_path):
    save_file(torch.nn.Conv3d(1, 2, 3).state_dict(), tmp_path / "net.safetensors")
    file = {
        "filename": "a.safetensors",
        "local": "net.safetensors",
        "sha256": sha256((tmp_path / "net.safetensors").read_bytes()),
    }
    entry = Manifest.load(write_manifest(tmp_path, [file])).entry("site-net")
    assert WeightsCache(tmp_path / "home", offline=True).ensure(entry) == (tmp_path / "net.safetensors",)
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("weights_id", "folder"), [("obelisk-tcia", "obelisk_tcia"), ("sononet16", "sononet")])
def test_the_published_weights_load_strictly(shared_data, tmp_path, weights_id, folder):
    entry = Manifest.load().entry(weights_id)
    cache = WeightsCache(tmp_path, offline=True)
    assert not cache.available(entry)
    for file in entry.files:
        cache.add(file, shared_data / "weights" / folder / file.filename)
    assert cache.available(entry)
    for path in cache.ensure(entry):
        module = load_strict(build(entry.architecture, entry.config), path)
        variances = [tensor for key, tensor in module.state_dict().items() if key.endswith("running_var")]
        assert all((tensor > 0).all() for tensor in variances)


@pytest.mark.slow
def test_a_monai_bundle_goes_from_its_file_into_its_network(tmp_path):
    pytest.importorskip("monai", reason="the monai extra is not installed")
    packaged = Manifest.load().entry("monai-spleen")
    state = build(packaged.architecture, packaged.config).state_dict()
    torch.save(state, tmp_path / "model.pt")
    digest = sha256((tmp_path / "model.pt").read_bytes())
    site = tmp_path / "site.yaml"
    file = f"{{filename: model.pt, local: model.pt, sha256: '{digest}'}}"
    site.write_text(f"schema: agseg.weights/1\nentries:\n  monai-spleen:\n    files:\n      - {file}\n")
    entry = Manifest.load(site).entry("monai-spleen")
    assert (entry.config, entry.input) == (packaged.config, packaged.input)
    (path,) = WeightsCache(tmp_path / "home", offline=True).ensure(entry)
    loaded = load_strict(build(entry.architecture, entry.config), path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
