"""Every published configuration has exactly the parameters that networks.md counts, without allocating one."""

from __future__ import annotations

import pytest
import torch

from agseg.errors import UsageError
from agseg.models.catalogue import FAMILIES, config_of
from agseg.models.published import PUBLISHED
from agseg.models.registry import build

COUNTS = {
    "unet3d": 5_888_004,
    "attention-unet3d": 6_407_018,
    "attention-unet3d-proj": 6_473_322,
    "unet3d-6.44m": 6_444_328,
    "unet3d-10.40m": 10_403_190,
    "sononet-8": 162_954,
    "sononet-16": 647_914,
    "sononet-32": 2_583_978,
    "ag-sononet-8": 177_068,
    "ag-sononet-16": 700_716,
    "ag-sononet-32": 2_787_884,
    "ag-sononet-ds-8": 179_322,
    "ag-sononet-ds-16": 705_210,
    "ag-sononet-ds-32": 2_796_858,
    "ag-sononet-ft-8": 177_040,
    "ag-sononet-ft-16": 700_688,
    "ag-sononet-ft-32": 2_787_856,
    "sononet16-original": 930_796,
    "anu-net-l1": 102_612,
    "anu-net-l2": 520_286,
    "anu-net-l3": 2_244_993,
    "anu-net-l4": 9_203_264,
    "unetpp": 9_041_601,
    "focusnet": 18_055_905,
    "focusnet-released": 19_063_933,
    "obelisk-hybrid": 229_217,
}

VARIANTS = [
    ("unet", {"classes": 2}, 5_887_466),
    ("unet", {"classes": 3}, 5_887_731),
    ("unet", {"classes": 5}, 5_888_285),
    ("attention-unet", {"gating": "proj_half"}, 6_407_402),
    ("attention-unet", {"gating": "proj", "gates": 1}, 6_214_151),
    ("ag-sononet", {"mode": "ft"}, 177_670),
    ("ag-sononet", {"mode": "ft", "base": 32}, 2_788_486),
    ("sononet-original", {"base": 32}, 3_716_540),
    ("sononet-original", {"base": 64}, 14_852_956),
    ("unetpp", {"depth": 1}, 100_961),
    ("unetpp", {"depth": 3}, 2_204_961),
]


def count(architecture: str, config: dict | None = None) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(architecture, config).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_published_configurations_are_counted_exactly(name):
    assert count(name) == COUNTS[name]


@pytest.mark.parametrize(("family", "config", "expected"), VARIANTS)
def test_variants_are_counted_exactly(family, config, expected):
    assert count(family, config) == expected


def test_every_published_name_of_the_interface_is_there_in_order():
    names = (
        "unet3d attention-unet3d attention-unet3d-proj attention-unet3d-concat attention-unet3d-dual unet3d-6.44m "
        "unet3d-10.40m sononet-8 sononet-16 sononet-32 "
        "ag-sononet-8 ag-sononet-16 ag-sononet-32 ag-sononet-ds-8 ag-sononet-ds-16 ag-sononet-ds-32 ag-sononet-ft-8 "
        "ag-sononet-ft-16 ag-sononet-ft-32 sononet16-original anu-net-l1 anu-net-l2 anu-net-l3 anu-net-l4 unetpp r2unet "
        "attention-r2unet res-unet ru-net focusnet focusnet-released obelisk-hybrid"
    )
    assert list(PUBLISHED) == names.split()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_run_at_their_papers_input(name):
    published = PUBLISHED[name]
    with torch.device("meta"):
        network, image = build(name).eval(), torch.empty(published.input_shape)
    assert all(side % network.size_multiple == 0 for side in published.input_shape[2:])
    assert network(image).shape[0] == 1


def test_a_published_name_is_its_familys_configuration_and_arguments_override_it():
    assert config_of("attention-unet3d-proj", {"width": 8}) == ("attention-unet", {"gating": "proj", "width": 8})
    with torch.device("meta"):
        narrow = build("attention-unet3d", {"width": 8, "classes": 6})
    assert narrow.widths[0] == 8
    assert all(published.family in FAMILIES for published in PUBLISHED.values())


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("no-such-net", {}),
        ("unet", {"depths": 3}),
        ("unet", {"dims": 4}),
        ("unet", {"width": 0}),
        ("anu-net", {"depth": 5}),
        ("anu-net", {"depth": 0}),
        ("attention-unet", {"gating": "sideways"}),
        ("attention-unet", {"gate_kind": "loud"}),
        ("r2unet", {"steps": -1}),
        ("ag-sononet", {"mode": "loud"}),
    ],
)
def test_what_does_not_exist_is_refused_as_a_usage_error(architecture, config):
    with pytest.raises(UsageError):
        build(architecture, config)
