"""Laws of the scanner effects: reproducible, shape kept, nothing at strength zero, and each does what its name says."""

from __future__ import annotations

import torch

from agseg.training.augment import IntensityAugmentation, _thicken, cut_field, degrade, soften
from agseg.training.cases import AIR_HU
from agseg.training.sample import step_generator

NOTHING = IntensityAugmentation(
    noise_chance=0.0,
    gain=0.0,
    offset_hu=0.0,
    shading_chance=0.0,
    blur_chance=0.0,
    thick_slices_chance=0.0,
    streak_chance=0.0,
    cut_chance=0.0,
)
EVERYTHING = IntensityAugmentation(
    noise_chance=1.0, shading_chance=1.0, blur_chance=1.0, thick_slices_chance=1.0, streak_chance=1.0, cut_chance=1.0
)


def image() -> torch.Tensor:
    return torch.randn((18, 14, 10), generator=step_generator(9, 9)) * 50


def test_no_effect_leaves_the_image_alone() -> None:
    torch.testing.assert_close(degrade(image(), NOTHING, step_generator(0, 0)), image())


def test_the_same_generator_gives_the_same_image_and_the_source_is_not_changed() -> None:
    source = image()
    first, second = (degrade(source, EVERYTHING, step_generator(0, 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(source, image())
    assert first.shape == source.shape
    assert not torch.equal(first, degrade(source, EVERYTHING, step_generator(0, 2)))


def test_blur_keeps_a_constant_and_smooths_noise() -> None:
    constant = torch.full((9, 9, 9), 42.0)
    torch.testing.assert_close(soften(constant, 0.8), constant)
    assert soften(image(), 0.8).std() < 0.6 * image().std()


def test_blur_is_the_same_along_every_axis() -> None:
    torch.testing.assert_close(
        soften(image(), 0.7).permute(2, 0, 1), soften(image().permute(2, 0, 1), 0.7), rtol=1e-4, atol=1e-3
    )


def test_thick_slices_average_along_z_only() -> None:
    columns = torch.randn((6, 5, 1), generator=step_generator(0, 3)).expand(6, 5, 12)
    torch.testing.assert_close(_thicken(columns, 3.0), columns)
    alternating = torch.tensor([1.0, -1.0]).repeat(6).expand(6, 5, 12)
    assert _thicken(alternating, 2.0).abs().max() < 1e-6


def test_a_cut_takes_image_and_labels_away_on_one_side_and_leaves_the_rest() -> None:
    for step in range(12):
        source, labels = image(), torch.ones((18, 14, 10), dtype=torch.uint8)
        cut, left = cut_field(source, labels, chance=1.0, generator=step_generator(4, step))
        gone = cut == AIR_HU
        assert 0 < float(gone.float().mean()) < 0.5
        assert torch.equal(cut[~gone], source[~gone])
        assert torch.equal(left == 0, gone)


def test_no_cut_at_no_chance() -> None:
    labels = torch.ones((18, 14, 10), dtype=torch.uint8)
    cut, left = cut_field(image(), labels, chance=0.0, generator=step_generator(0, 0))
    assert torch.equal(cut, image())
    assert left is labels
