"""Facts about networks that the parent process and the command line read without torch, and the one rule of pruning."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agseg.errors import UsageError
from agseg.models.catalogue import FAMILIES, check_depth, facts, prunable
from agseg.models.published import PUBLISHED


def test_it_imports_no_torch():
    code = "import sys, agseg.models.catalogue, agseg.models.precision; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_family_and_every_published_network_has_facts():
    for name in (*FAMILIES, *PUBLISHED):
        config = {"strides": [1, 2]} if name.startswith(("nnunet", "monai-unet")) else {}
        found = facts(name, config)
        assert found.size_multiple >= 1
        assert found.family in FAMILIES
        if name in PUBLISHED:
            assert PUBLISHED[name].input_shape[1] == found.in_channels


@pytest.mark.parametrize(
    ("architecture", "config", "deepest"),
    [
        ("anu-net", {}, 4),
        ("anu-net", {"depth": 3}, 3),
        ("anu-net", {"widths": [8, 16, 32]}, 2),
        ("anu-net", {"widths": [8, 16, 32, 64], "depth": 2}, 2),
        ("anu-net-l2", {}, 2),
        ("anu-net-l3", {"depth": 2}, 2),
        ("anu-net-l4", {"classes": 6}, 4),
    ],
)
def test_a_depth_exists_that_was_trained_and_no_other(architecture, config, deepest):
    assert facts(architecture, config).deepest == deepest
    for depth in range(1, deepest + 1):
        check_depth(architecture, config, depth, weights="w")
    for depth in (0, -1, deepest + 1):
        with pytest.raises(UsageError, match=f"expected 1 to {deepest}"):
            check_depth(architecture, config, depth, weights="w")


@pytest.mark.parametrize(
    ("architecture", "config"), [("unet", {}), ("unetpp", {}), ("anu-net-l1", {}), ("anu-net", {"depth": 1})]
)
def test_a_network_without_a_second_depth_cannot_be_pruned(architecture, config):
    with pytest.raises(UsageError, match="cannot be pruned") as refused:
        check_depth(architecture, config, 1, weights="w", able=("other",))
    assert "anu-net-l3" in str(refused.value.expected)
    assert "other" in str(refused.value.hint)


def test_the_prunable_networks():
    assert prunable() == ("anu-net", "anu-net-l2", "anu-net-l3", "anu-net-l4")
