"""Laws of patches: the same seed gives the same patch, an unbent patch is a crop, a swelling moves what it should."""

from __future__ import annotations

import pytest
import torch

from agseg.training.cases import AIR_HU, Case
from agseg.training.patches import (
    Deformation,
    Swelling,
    patch_centre,
    sample_image,
    sample_labels,
    sampling_points,
)
from agseg.training.sample import step_generator

STILL = Deformation(probability=0.0)
RIGID = Deformation(0.0, (1.0, 1.0), 0.0, (), 1.0)
MIDDLE = torch.full((3,), 19.5)


def case(size: int = 24) -> Case:
    generator = torch.Generator().manual_seed(5)
    image = torch.rand((size, size, size), generator=generator) * 200
    labels = torch.zeros((size, size, size), dtype=torch.uint8)
    labels[8:14, 8:14, 8:14] = 2
    return Case("one", image, labels)


def test_an_unbent_patch_is_the_crop_itself() -> None:
    one = case()
    centre = torch.tensor([10.5, 11.5, 9.5])
    points = sampling_points(centre, shape=(8, 6, 4), deformation=STILL, generator=step_generator(0, 0))
    crop = (slice(7, 15), slice(9, 15), slice(8, 12))
    torch.testing.assert_close(sample_image(one.image, points), one.image[crop], rtol=1e-4, atol=1e-2)
    assert torch.equal(sample_labels(one.labels, points), one.labels[crop])


def test_beyond_the_scan_lie_air_and_background() -> None:
    one = case()
    points = sampling_points(
        torch.tensor([-40.0, 5.0, 5.0]), shape=(4, 4, 4), deformation=STILL, generator=step_generator(0, 0)
    )
    assert torch.all(sample_image(one.image, points) == AIR_HU)
    assert torch.all(sample_labels(one.labels, points) == 0)


def test_bending_moves_image_and_labels_together() -> None:
    size = 32
    labels = torch.zeros((size, size, size), dtype=torch.uint8)
    labels[10:22, 8:20, 12:24] = 1
    one = Case("two", labels.float() * 100, labels)
    points = sampling_points(
        torch.full((3,), 15.5), shape=(24, 24, 24), deformation=Deformation(probability=1.0), generator=step_generator(1, 2)
    )
    image, bent = sample_image(one.image, points), sample_labels(one.labels, points)
    inside = sample_image(torch.ones_like(one.image), points) > 0
    agree = ((image > 50) == (bent == 1))[inside].float().mean()
    assert agree > 0.97
    assert 0.1 < float((bent == 1).float().mean()) < 0.9


@pytest.mark.parametrize("magnification", [0.75, 1.4])
def test_a_swelling_scales_the_organ_at_its_centre(magnification: float) -> None:
    labels = torch.zeros((40, 40, 40), dtype=torch.uint8)
    labels[15:25, 15:25, 15:25] = 1
    plain = sampling_points(
        MIDDLE,
        shape=(40, 40, 40),
        deformation=RIGID,
        generator=step_generator(0, 0),
    )
    swollen = sampling_points(
        MIDDLE,
        shape=(40, 40, 40),
        deformation=RIGID,
        generator=step_generator(0, 0),
        swellings=[Swelling((19.5, 19.5, 19.5), 20.0, magnification)],
    )
    before, after = (float((sample_labels(labels, p) == 1).sum()) for p in (plain, swollen))
    assert before == 1000
    assert (after > before) == (magnification > 1)
    assert after / before == pytest.approx(magnification**3, rel=0.35)


def test_centres_fall_on_organs_as_often_as_asked() -> None:
    one = case()
    near = 0
    for step in range(60):
        centre = patch_centre(one, shape=(4, 4, 4), organ_probability=1.0, generator=step_generator(3, step))
        near += bool(((centre > 6) & (centre < 16)).all())
    assert near == 60


def test_a_case_whose_parts_differ_in_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        Case("x", torch.zeros(3, 3, 3), torch.zeros(3, 3, 4, dtype=torch.uint8))
