"""Single values of a recipe are replaced by name; what is no key, or does not hold together, is refused."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import RecipeError, UsageError
from agseg.training.overrides import overridden
from agseg.training.patch_draws import PatchSettings
from agseg.training.recipe import find_recipe, plain, to_yaml

RECIPE = find_recipe("attention-unet3d-phantom-ct150")


def test_nothing_given_is_the_recipe_itself() -> None:
    assert overridden(RECIPE) is RECIPE


def test_values_are_replaced_at_any_depth() -> None:
    found = overridden(
        RECIPE, ["loop.learning_rate=3e-4", "affine.zoom=[0.5, 2]", "network.config.gates=1"], steps=10, seed=7, batch=3
    )
    assert (found.loop.learning_rate, found.affine.zoom, found.network.config["gates"]) == (3e-4, (0.5, 2.0), 1)
    assert (found.loop.steps, found.loop.seed, found.batch) == (10, 7, 3)
    assert found.loop.warmup_steps <= 5
    assert found.input == RECIPE.input


def test_a_written_recipe_is_the_same_recipe(tmp_path) -> None:
    path = tmp_path / f"{RECIPE.name}.yaml"
    path.write_text(to_yaml(RECIPE))
    assert find_recipe(path) == RECIPE
    shown = CliRunner().invoke(app, ["recipe", "show", RECIPE.name])
    assert shown.exit_code == 0
    path.write_text(shown.stdout)
    assert find_recipe(path) == RECIPE


@pytest.mark.parametrize(
    "setting", ["loop.steps", "=3", "loop.stepps=3", "network.width=3", "nothing.at.all=1", "loop.steps=[1"]
)
def test_what_is_no_setting_is_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        overridden(RECIPE, [setting])


@pytest.mark.parametrize("setting", ["loop.steps=0", "loop.steps=many", "network.config.classes=9", "input.tile=[33, 32, 32]"])
def test_what_does_not_hold_together_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError) as caught:
        overridden(RECIPE, [setting])
    assert "line" not in caught.value.message  # of no file


@pytest.mark.parametrize("kidney", ["kidney_left", "kidney_l", "l_kidney", "kidney-left", "LeftKidney", "kidney L"])
def test_mirroring_left_and_right_is_refused_where_labels_have_sides(kidney: str) -> None:
    labels = f"labels={{1: spleen, 2: {kidney}, 3: liver}}"
    with pytest.raises(RecipeError, match="mirroring left and right"):
        overridden(RECIPE, [labels, "affine.flip=[0]"])
    assert overridden(RECIPE, [labels, "affine.flip=[1]"]).affine.flip == (1,)


def test_a_plain_value_is_what_yaml_holds() -> None:
    assert plain({"a": (1, 2), "b": RECIPE.loss}) == {"a": [1, 2], "b": "soft-dice"}


def test_the_page_has_every_key_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/own-data.md").read_text()
    table = page[page.index("## The keys of a recipe") :]
    said = {
        key for line in table.splitlines() if line.startswith("| `") for key in re.findall(r"`([\w.*]+)`", line.split("|")[1])
    }
    content = plain(asdict(RECIPE))
    inner = {f"{key}.{name}" for key in ("loop", "network", "start") for name in (content[key] or {"recipe": 0, "parts": 0})}
    inner |= {f"patches.{key.name}" for key in fields(PatchSettings)}
    outer = {"loop", "network", "start", "input", "affine", "augment", "patches", "published", "minutes_on_gpu"}
    assert said == (set(content) - outer) | inner | {"input.*", "affine.*", "augment.*", "patches.*"}
