"""Laws of the scenes without organs."""

from __future__ import annotations

import pytest
import torch

from agseg.training.negatives import Scene, make_scene


@pytest.mark.slow
@pytest.mark.parametrize("scene", list(Scene))
def test_a_scene_holds_no_organ_and_depends_on_its_seed_alone(scene: Scene) -> None:
    first, again, other = make_scene(scene, seed=1), make_scene(scene, seed=1), make_scene(scene, seed=2)
    assert not first.labels.any()
    assert first.present_classes() == ()
    assert first.known is None
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)


@pytest.mark.slow
@pytest.mark.parametrize("scene", [Scene.HEAD, Scene.THIGHS, Scene.SHAPELESS])
def test_a_scene_shows_a_body_of_plausible_size(scene: Scene) -> None:
    made = make_scene(scene, seed=3)
    litres = float((made.image > -300).sum()) * 0.064 / 1000
    assert 1.0 < litres < 20.0


def test_an_empty_table_is_mostly_air() -> None:
    assert float((make_scene(Scene.TABLE, seed=0).image > -300).float().mean()) < 0.05
