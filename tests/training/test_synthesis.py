"""Laws of contrast synthesis: anatomy stays, looks change, the same draw gives the same image."""

from __future__ import annotations

import pytest
import torch

from agseg.training.sample import step_generator
from agseg.training.synthesis import PHASE_HU, Phase, SynthesisSettings, Tissue, recolour, structure_means

TISSUES = {1: Tissue.LIVER, 2: Tissue.KIDNEY, 3: Tissue.FAT, 4: Tissue.BONE}
KEEP, RECOLOUR, DRAW = (
    SynthesisSettings(a, b, c, lesion_chance=0.0, oral_contrast_chance=0.0)
    for a, b, c in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
)


def scan() -> tuple[torch.Tensor, torch.Tensor]:
    structures = torch.full((24, 24, 24), 3, dtype=torch.uint8)
    structures[2:12, 2:22, 2:22], structures[14:22, 2:22, 2:22] = 1, 2
    hu = torch.tensor([0.0, 55.0, 30.0, -100.0])[structures.long()]
    return hu + torch.randn(hu.shape, generator=step_generator(0, 0)) * 8, structures


def look(settings: SynthesisSettings, step: int) -> torch.Tensor:
    image, structures = scan()
    means = structure_means(image, structures)
    return recolour(image, structures, means=means, tissues=TISSUES, settings=settings, generator=step_generator(1, step))


def test_structure_means_are_those_of_the_solid_part() -> None:
    image, structures = scan()
    image[2:4, 2:22, 2:22] = -90.0  # fat inside the liver's label
    means = structure_means(image, structures)
    assert means[1] == pytest.approx(55, abs=1)
    assert means[3] == pytest.approx(-100, abs=1)
    assert means[9] == 0


def test_a_kept_image_is_not_touched() -> None:
    assert torch.equal(look(KEEP, 0), scan()[0])


def test_the_same_draw_gives_the_same_image_and_another_draw_another() -> None:
    assert torch.equal(look(RECOLOUR, 4), look(RECOLOUR, 4))
    assert not torch.equal(look(RECOLOUR, 4), look(RECOLOUR, 5))


@pytest.mark.slow
def test_recoloured_organs_lie_in_the_range_of_some_phase_and_keep_their_texture() -> None:
    image, structures = scan()
    core = torch.zeros_like(structures, dtype=torch.bool)
    core[4:10, 5:19, 5:19] = True
    lowest = min(low for low, _ in PHASE_HU[Tissue.LIVER].values()) - 20
    highest = max(high for _, high in PHASE_HU[Tissue.LIVER].values()) + 20
    seen = []
    for step in range(25):
        new = look(RECOLOUR, step)[core]
        assert lowest < new.mean() < highest
        assert torch.corrcoef(torch.stack([new, image[core]]))[0, 1] > 0.95
        seen.append(float(new.mean()))
    assert max(seen) - min(seen) > 30


@pytest.mark.slow
def test_fat_and_tissue_stay_apart_in_every_anatomical_look() -> None:
    _, structures = scan()
    for step in range(15):
        new = look(RECOLOUR, step)
        assert new[structures == 3].mean() < -60
        assert new[4:10, 5:19, 5:19].mean() > 0


@pytest.mark.slow
def test_drawn_images_vary_more_than_any_phase() -> None:
    kidney = torch.tensor([float(look(DRAW, step)[16:20, 6:18, 6:18].mean()) for step in range(40)])
    assert kidney.max() - kidney.min() > 120


def test_structures_without_a_tissue_keep_their_look() -> None:
    image, structures = scan()
    structures[0, :, :] = 77
    means = structure_means(image, structures)
    new = recolour(image, structures, means=means, tissues={1: Tissue.LIVER}, settings=RECOLOUR, generator=step_generator(0, 1))
    assert torch.equal(new[0, :, :], image[0, :, :])


def test_every_phase_has_a_range_for_every_listed_tissue() -> None:
    for ranges in PHASE_HU.values():
        assert set(ranges) == set(Phase)
        assert all(low < high for low, high in ranges.values())


def test_chances_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up"):
        SynthesisSettings(0.5, 0.5, 0.5)
