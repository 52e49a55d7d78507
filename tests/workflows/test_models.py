"""The list of networks: contract of ``agseg models --json`` and the agreement with print."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agseg.models.published import PUBLISHED, Published
from agseg.workflows.models import agreement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows():
    done = subprocess.run([sys.executable, "-m", "agseg", "models", "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def published(millions: float | None, *, decimals: int = 2, truncated: bool = False) -> Published:
    return Published("unet", {}, (1, 1, 16, 16), "by hand", millions, decimals=decimals, truncated=truncated)


@pytest.mark.parametrize(
    ("parameters", "entry", "expected"),
    [
        (5_884_999, published(5.88), "exact"),
        (5_888_004, published(5.88), "+0.14 %"),
        (5_888_004, published(5.88, truncated=True), "truncated"),
        (5_870_000, published(5.88, truncated=True), "-0.17 %"),
        (102_612, published(0.1038, decimals=4), "-1.14 %"),
        (10, published(None), "not published"),
    ],
)
def test_agreement_by_hand(parameters, entry, expected):
    assert agreement(parameters, entry) == expected


def test_only_the_networks_that_cannot_agree_with_print_do_not(rows):
    apart = {row["name"] for row in rows if "%" in row["agreement"]}
    assert apart == {"attention-unet3d-proj", "anu-net-l1", "anu-net-l2", "anu-net-l3", "anu-net-l4"}


def test_cost_is_that_of_the_specification(rows):
    expected = {
        "unet3d": 169.70,
        "attention-unet3d": 173.29,
        "sononet-8": 0.298,
        "ag-sononet-16": 1.233,
        "sononet16-original": 1.238,
        "anu-net-l1": 3.55,
        "anu-net-l4": 31.11,
        "focusnet": 35.28,
        "focusnet-released": 70.03,
    }
    # 0.1 %: our fused head runs before the upsampling, which saves 0.15 GMAC of the U-Nets'.
    found = {row["name"]: row["gmac"] for row in rows}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=2e-3)


def test_json_is_one_document_with_the_keys_of_the_interface(rows):
    assert [row["name"] for row in rows] == list(PUBLISHED)
    keys = {"name", "dims", "parameters", "published_m", "gmac", "input_shape", "source"}
    assert all(keys <= set(row) for row in rows)
    assert all(len(row["input_shape"]) == row["dims"] + 2 for row in rows)
