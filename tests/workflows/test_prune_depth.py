"""``agseg segment --prune-depth`` from end to end."""

import json

import nibabel as nib
import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from agseg.errors import UsageError
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import ReadyNetwork, load_network
from agseg.io.nifti import read_nifti
from agseg.models.precision import Precision
from agseg.models.unetpp import prune_state_dict
from agseg.study import Study, StudyKind
from agseg.weights.manifest import Manifest
from tests import phantoms
from tests.tiny_anu_net import ID, build_anu_net, write_manifest
from tests.workflows.test_segment import agseg

SHAPE, SPACING = (28, 26, 24), (5.0, 5.0, 6.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("depth")
    write_manifest(root / "site")
    affine = phantoms.coded_affine("LPI", SHAPE, SPACING)
    phantoms.write_nifti(root / "scan.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    return root


def segment(site, out, *arguments, weights=ID):
    where = ("-o", out, "--manifest", site / "site/site.yaml", "--weights", weights, "--precision", "fp32", "--device", "cpu")
    how = ("--ml", "--no-preview", "--json", *arguments)
    return agseg("segment", site / "scan.nii.gz", *where, *how, AGSEG_HOME=str(site / "home"))


def scan(site):
    return read_nifti(Study("scan", site, (site / "scan.nii.gz",), StudyKind.NIFTI))


def head_mask(site, depth):
    """Labels of the whole network's head of a depth."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = build_anu_net()

        def forward(self, x):
            return self.network.heads(x)[depth - 1]

    entry = Manifest.load(site / "site/site.yaml").entry(ID)
    network = ReadyNetwork((Head(),), device=torch.device("cpu"), precision=Precision.FP32)
    return segment_with_entry(scan(site), network, entry).mask.labels


@pytest.mark.slow
def test_depth_2_runs_and_its_mask_is_that_of_head_2(site):
    done = segment(site, site / "two", "--prune-depth", "2")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["parameters"]["prune_depth"] == 2
    labels = np.asarray(nib.load(site / "two" / record["studies"][0]["output"] / "labels.nii.gz").dataobj)
    wanted = head_mask(site, 2)
    assert np.mean(labels != wanted) < 1e-3
    assert np.mean(labels != head_mask(site, 4)) > 0.05, "heads that agree would show nothing"


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_mask_of_every_depth_is_that_of_its_head(site, depth):
    entry = Manifest.load(site / "site/site.yaml").entry(ID)
    network = load_network(entry, (site / f"site/{ID}.safetensors",), device=torch.device("cpu"), prune_depth=depth)
    found = segment_with_entry(scan(site), network, entry).mask.labels
    assert np.mean(found != head_mask(site, depth)) < 1e-3  # batch norms are folded: ties may round otherwise


def test_deeper_tensors_are_never_read(site, monkeypatch):
    read = []
    real = safetensors.safe_open

    class Watched:
        def __init__(self, *arguments, **options):
            self.file = real(*arguments, **options)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_tensor(self, key):
            read.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(safetensors, "safe_open", Watched)
    entry = Manifest.load(site / "site/site.yaml").entry(ID)
    load_network(entry, (site / f"site/{ID}.safetensors",), device=torch.device("cpu"), prune_depth=2)
    state = load_file(site / f"site/{ID}.safetensors")
    assert sorted(read) == sorted(prune_state_dict(state, depth=2))
    assert len(read) < len(state) / 2


def test_weights_that_end_at_the_depth_are_enough(site):
    """The deeper nodes take no part: without their tensors the same network comes out."""
    state = load_file(site / f"site/{ID}.safetensors")
    save_file(prune_state_dict(state, depth=2), site / "cut.safetensors")
    entry = Manifest.load(site / "site/site.yaml").entry(ID)
    x = torch.rand(1, 1, 16, 16, 16)
    cpu = torch.device("cpu")
    cut = load_network(entry, (site / "cut.safetensors",), device=cpu, prune_depth=2)
    whole = load_network(entry, (site / f"site/{ID}.safetensors",), device=cpu, prune_depth=2)
    assert torch.equal(cut(x), whole(x))


@pytest.mark.slow
def test_other_architectures_exit_2_and_name_those_that_can(site):
    done = segment(site, site / "none", "--prune-depth", "2", weights="tiny-unet")
    assert done.returncode == 2
    assert "cannot be pruned" in done.stderr
    assert "weights of anu-net, anu-net-l2, anu-net-l3, anu-net-l4" in done.stderr
    assert ID in done.stderr
    assert not (site / "none").exists()
    entry = Manifest.load(site / "site/site.yaml").entry("tiny-unet")
    with pytest.raises(UsageError, match="cannot be pruned") as caught:
        load_network(entry, (site / "site/tiny-unet.safetensors",), device=torch.device("cpu"), prune_depth=2)
    assert "anu-net" in str(caught.value.expected)


@pytest.mark.slow
def test_a_depth_that_does_not_exist_exits_2(site):
    done = segment(site, site / "none", "--prune-depth", "5")
    assert done.returncode == 2
    assert not (site / "none").exists()
