"""The times that docs/reproduce.md estimates follow from the formula that it gives, for the recipes as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agseg.models.registry import build
from agseg.training.recipe import find_recipe

PAGE = Path(__file__).resolve().parents[2] / "docs/reproduce.md"
SUSTAINED = 4e12
"""Operations per second that the page assumes."""

ROWS = re.findall(r"^\| `([\w.-]+)` \| ([\d,]+) \| ([\d.]+) h \|$", PAGE.read_text(encoding="utf-8"), re.M)


def hours(name: str) -> float:
    """Three passes of two operations per multiply-add, for every sample of every step."""
    recipe = find_recipe(name)
    config = dict(recipe.network.config)
    with torch.device("meta"):
        network = build(recipe.network.architecture, config).eval()
        tile = recipe.input.tile if recipe.input.tile[2] > 1 else recipe.input.tile[:2]
        image = torch.empty(1, config.get("in_channels", 1), *tile)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            network(image)
    samples = recipe.loop.steps * recipe.batch * recipe.loop.accumulate
    return 3 * counted.get_total_flops() * samples / SUSTAINED / 3600


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "printed"), ROWS)
def test_an_estimate_is_what_the_formula_gives(name, steps, printed):
    assert int(steps.replace(",", "")) == find_recipe(name).loop.steps
    assert hours(name) == pytest.approx(float(printed), rel=0.06)


def test_every_experiment_has_a_time():
    assert {find_recipe(name).dataset for name, _, _ in ROWS} == {
        "ct150",
        "ct82",
        "lits",
        "chaos",
        "lung",
        "isic2017",
        "fetal-us",
    }
