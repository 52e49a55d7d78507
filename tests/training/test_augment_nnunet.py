"""Laws of nnU-Net's augmentation: reproducible, geometry in mm, labels stay labels, image and labels move together."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from agseg.binding import bind
from agseg.errors import FieldError, RecipeError
from agseg.extras import MissingPackageError
from agseg.training.augment_nnunet import Augmentation, Augmenter, AugmentKind
from agseg.training.batches import DrawBatches
from agseg.training.cases import IGNORE, Case
from agseg.training.checkpoint import random_state
from agseg.training.draws import Affine, PictureDraws, VolumeDraws
from agseg.training.overrides import overridden
from agseg.training.recipe import find_recipe
from agseg.training.sample import step_generator
from agseg.weights.input_spec import InputSpec, Normalisation

NOTHING: dict[str, Any] = dict.fromkeys((name for name in Augmentation.__dataclass_fields__ if name.endswith("_chance")), 0.0)
EVERYTHING: dict[str, Any] = dict.fromkeys(NOTHING, 1.0)


def nnunet(**changed) -> Augmentation:
    return Augmentation(AugmentKind.NNUNET, **(NOTHING | changed))


def spec(tile=(12, 12, 12), spacing=(1.0, 1.0, 1.0)) -> InputSpec:
    return InputSpec("MR", axis_codes="RAS", spacing_mm=spacing, normalisation=Normalisation.NONE, tile=tile)


def case(shape=(16, 14, 12), seed=0) -> Case:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    labels = (image > 0.5).to(torch.uint8) + (image > 1).to(torch.uint8)
    labels[image > 1.5] = IGNORE
    return Case(f"c{seed}", image, labels)


PAPERS = Affine()


def draws(augment: Augmentation, cases=None, affine=PAPERS, **changed) -> VolumeDraws:
    return VolumeDraws(cases or [case()], spec(**changed), affine, seed=3, augment=augment)


def moved_mm(settings: Augmentation, spacing, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random offsets (mm) before and after they are bent."""
    offsets = torch.randn((6, 5, 4, 3), generator=step_generator(8, number)) * 10
    augmenter = Augmenter(settings, spacing=spacing, tile=(6, 5, 4))
    bent, matrix = augmenter.bend(list(offsets.unbind(-1)), torch.eye(3), step_generator(1, number))
    side = torch.tensor(spacing)
    return offsets * side, (torch.stack(bent, -1) @ matrix) * side


def test_without_a_kind_nothing_is_drawn_and_nothing_changes() -> None:
    generator = step_generator(0, 0)
    before = generator.get_state()
    augmenter = Augmenter(Augmentation(**EVERYTHING), spacing=(1.0, 1.0, 1.0), tile=(4, 4, 4))
    offsets, matrix, image = [torch.randn(4, 4, 4)] * 3, torch.eye(3), torch.randn(1, 4, 4, 4)
    assert augmenter.bend(offsets, matrix, generator) == (offsets, matrix)
    assert augmenter.look(image, generator) is image
    assert torch.equal(generator.get_state(), before)


def test_the_same_seed_and_number_give_the_same_sample_whoever_draws_it_and_leave_the_global_generators_alone() -> None:
    augment, cases = nnunet(**EVERYTHING), [case(seed=n) for n in range(3)]
    before = random_state()
    alone = [b.image for b in DrawBatches(draws(augment, cases), size=2).batches(0, 4)]
    assert torch.equal(random_state()["torch"], before["torch"])
    assert torch.equal(random_state()["numpy"][1], before["numpy"][1])
    torch.manual_seed(2)
    for workers in (1, 2):
        shared = [b.image for b in DrawBatches(draws(augment, cases), size=2, workers=workers).batches(0, 4)]
        assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert not torch.equal(alone[0][0], draws(augment, cases)[7].image)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.1, 2.0)])
def test_a_turn_keeps_every_distance_in_mm(spacing) -> None:
    for number in range(10):
        before, after = moved_mm(nnunet(rotation_chance=1.0), spacing, number)
        torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1), rtol=1e-4, atol=1e-4)
        assert (after - before).norm(dim=-1).mean() > 0.1


def test_a_zoom_is_the_same_along_every_axis() -> None:
    factors = set()
    for number in range(10):
        before, after = moved_mm(nnunet(zoom_chance=1.0), (0.7, 1.1, 2.0), number)
        factor = float(before.norm() / after.norm())
        torch.testing.assert_close(after * factor, before, rtol=1e-4, atol=1e-4)
        assert 0.7 <= factor <= 1.4
        factors.add(round(factor, 3))
    assert len(factors) > 5


def test_thick_slices_are_turned_zoomed_and_bent_in_their_plane_alone() -> None:
    for number in range(10):
        before, after = moved_mm(nnunet(rotation_chance=1.0, zoom_chance=1.0, elastic_chance=1.0), (1.0, 1.0, 5.0), number)
        assert torch.equal(after[..., 2], before[..., 2])
        assert not torch.equal(after[..., :2], before[..., :2])


def test_bending_is_smooth_and_as_far_as_it_says_in_mm() -> None:
    spacing, tile = (1.0, 1.0, 2.0), (40, 40, 30)
    augmenter = Augmenter(nnunet(elastic_chance=1.0, elastic_mm=(20.0, 4.0)), spacing=spacing, tile=tile)
    still = [torch.zeros(tile)] * 3
    bent = [torch.stack(augmenter.bend(still, torch.eye(3), step_generator(0, n))[0], -1) for n in range(12)]
    in_mm = torch.stack(bent) * torch.tensor(spacing)
    assert 0.2 < in_mm.std() < 4.0
    ratio = in_mm[..., 2].std() / in_mm[..., 0].std()
    assert 0.6 < ratio < 1.7
    assert in_mm.diff(dim=1).abs().max() < 0.25 * in_mm.abs().max()


@pytest.mark.parametrize("tile", [(12, 12, 12), (12, 12, 1)])
def test_labels_stay_those_of_the_scan_and_ignored_voxels_stay_ignored(tile) -> None:
    kept = draws(nnunet(**EVERYTHING), affine=Affine((0,), 15, 0.1, (0.8, 1.2)), tile=tile)
    found = torch.cat([kept[n].labels.flatten() for n in range(12)])
    assert found.dtype == torch.uint8
    assert set(found.tolist()) == {0, 1, 2, IGNORE}


@pytest.mark.parametrize(("tile", "spacing"), [((12, 12, 12), (1.0, 1.0, 2.0)), ((12, 12, 1), (1.0, 1.0, 8.0))])
def test_image_and_labels_move_together(tile, spacing) -> None:
    x, y, z = torch.meshgrid(*[torch.arange(20) - 9.5] * 3, indexing="ij")
    ramp = x + 0.7 * y - 0.5 * z
    one = Case("a", ramp, 1 + (ramp > 0).to(torch.uint8))  # 0 is what lies outside
    bent = draws(nnunet(rotation_chance=1.0, zoom_chance=1.0, elastic_chance=1.0), [one], tile=tile, spacing=spacing)
    for number in range(8):
        sample = bent[number]
        clear = (sample.labels > 0) & (
            sample.image[0].abs() > 1.1
        )  # nearer to zero, the nearest voxel's centre may lie on the other side
        assert clear.float().mean() > 0.4
        assert torch.equal(sample.labels[clear] == 2, sample.image[0][clear] > 0)


def looked(number=0, channels=1, **chances) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn((channels, 16, 16, 16), generator=step_generator(5, 0))
    augmenter = Augmenter(nnunet(**chances), spacing=(1.0, 1.0, 1.0), tile=(16, 16, 16))
    return image, augmenter.look(image.clone(), step_generator(6, number))


def test_noise_and_brightness_are_of_the_strength_that_the_recipe_says() -> None:
    before, after = looked(noise_chance=1.0, noise_sd=(0.3, 0.3))
    assert 0.29 < (after - before).std() < 0.31
    before, after = looked(brightness_chance=1.0, brightness=(0.5, 0.5))
    torch.testing.assert_close(after, before * 0.5)
    before, after = looked(contrast_chance=1.0, contrast=(0.5, 0.5))
    torch.testing.assert_close(after - after.mean(), (before - before.mean()) * 0.5)


@pytest.mark.parametrize("chance", ["gamma_chance", "inverted_gamma_chance"])
def test_gamma_keeps_mean_spread_and_order(chance) -> None:
    before, after = looked(**{chance: 1.0})
    assert not torch.equal(before, after)
    torch.testing.assert_close((after.mean(), after.std()), (before.mean(), before.std()), rtol=1e-3, atol=1e-3)
    assert torch.equal(before.flatten().argsort(stable=True), after.flatten().argsort(stable=True))


def test_blur_and_low_resolution_happen_to_half_of_the_channels_and_smooth() -> None:
    for chance in ("blur_chance", "low_resolution_chance"):
        changed = 0
        for number in range(12):
            before, after = looked(number, channels=4, **{chance: 1.0})
            for one, other in zip(before, after, strict=True):
                if not torch.equal(one, other):
                    changed += 1
                    assert other.std() < one.std()
        assert 12 < changed < 36


def test_thick_slices_are_not_made_coarser() -> None:
    columns = torch.randn((1, 1, 1, 16), generator=step_generator(0, 1)).expand(1, 16, 16, 16).contiguous()
    augmenter = Augmenter(nnunet(low_resolution_chance=1.0), spacing=(1.0, 1.0, 5.0), tile=(16, 16, 16))
    for number in range(6):
        torch.testing.assert_close(augmenter.look(columns.clone(), step_generator(0, number)), columns)


def test_pictures_are_augmented_with_every_channel() -> None:
    picture = (torch.rand((3, 20, 24), generator=step_generator(0, 2)) * 255).to(torch.uint8)
    labels = (picture[0] > 99).to(torch.uint8)

    def drawn(augment):
        return PictureDraws(
            lambda n: (picture, labels, "p"),
            count=1,
            tile=(20, 24),
            affine=Affine(),
            mean=99.0,
            sd=60.0,
            seed=0,
            augment=augment,
        )[1]

    plain, changed = drawn(Augmentation()), drawn(nnunet(**EVERYTHING))
    assert changed.image.shape == plain.image.shape == (3, 20, 24)
    assert all(not torch.equal(a, b) for a, b in zip(plain.image, changed.image, strict=True))
    assert set(changed.labels.unique().tolist()) <= {0, 1}


def test_a_recipe_switches_it_on_with_one_key_and_is_as_before_without() -> None:
    plain = find_recipe("attention-unet3d-ct82-scr")
    assert plain.augment == Augmentation()
    assert overridden(plain, ["augment.gamma_chance=0.3"]).fingerprint == plain.fingerprint
    on = overridden(plain, ["augment.kind=nnunet"])
    assert on.augment == Augmentation(AugmentKind.NNUNET)
    assert on.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("kind", "strong", "strong"),
        ("gamma_chance", 1.5, "chance"),
        ("zoom", [1.4, 0.7], "range"),
        ("zoom", [0.0, 1.0], "factor"),
        ("low_resolution", [0.5, 2.0], "share"),
        ("rotation_deg", 270, "180"),
        ("elastic_mm", [0.0, 1.0], "distance"),
    ],
)
def test_what_cannot_be_is_refused(key, value, named) -> None:
    with pytest.raises(RecipeError) as refused:
        bind(f"{key}: {value}", Augmentation)
    assert named in refused.value.sentence()


def test_a_tile_that_cannot_be_blurred_so_far_is_refused() -> None:
    with pytest.raises(RecipeError, match="too small"):
        draws(nnunet(blur_chance=1.0, blur_voxels=(1.0, 5.0)))
    with pytest.raises(FieldError):
        nnunet(noise_sd=(-1.0, 0.0))


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("batchgeneratorsv2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "batchgeneratorsv2", None)
    draws(Augmentation())
    with pytest.raises(MissingPackageError) as missing:
        draws(nnunet(gamma_chance=1.0))
    assert "agseg[train]" in str(missing.value.hint)
