import pytest
import torch

from agseg.inference.normalise import normalise
from agseg.training.batches import DrawBatches
from agseg.training.cases import Case
from agseg.training.draws import Affine, Balance, ChannelShift, FrameDraws, PictureDraws, VolumeDraws, centre_crop
from agseg.weights.input_spec import InputSpec, Normalisation, Padding


def spec(tile=(8, 8, 8), padding=Padding.ZERO, normalisation=Normalisation.ZSCORE):
    window = None if normalisation is Normalisation.ZSCORE else (-100.0, 300.0)
    return InputSpec(
        "CT",
        axis_codes="RAS",
        spacing_mm=(2.0, 2.0, 2.0),
        window_hu=window,
        normalisation=normalisation,
        tile=tile,
        padding=padding,
    )


def case(shape=(8, 8, 8), seed=0, name="a"):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator) * 100
    return Case(name, image, (image > 50).to(torch.uint8))


BENT = Affine(flip=(0, 1), rotation_deg=15, shift=0.1, zoom=(0.7, 1.3))


def test_without_affine_a_tile_of_the_scans_size_is_the_scan():
    one = case()
    sample = VolumeDraws([one], spec(), Affine(), seed=0)[0]
    assert torch.allclose(sample.image[0], normalise(one.image.clone(), spec()), atol=1e-4)
    assert torch.equal(sample.labels, one.labels)


@pytest.mark.parametrize("affine", [Affine(), BENT])
def test_the_same_seed_and_number_give_the_same_sample(affine):
    cases = [case((10, 9, 12), n, f"c{n}") for n in range(3)]
    first, again = (VolumeDraws(cases, spec(), affine, seed=4) for _ in range(2))
    for number in (0, 5, 17):
        assert torch.equal(first[number].image, again[number].image)
        assert torch.equal(first[number].labels, again[number].labels)
    assert not torch.equal(first[0].image, VolumeDraws(cases, spec(), affine, seed=5)[0].image)


def test_every_case_comes_once_per_epoch():
    draws = VolumeDraws([case(seed=n, name=f"c{n}") for n in range(5)], spec(), Affine(), seed=0)
    for epoch in range(3):
        assert {draws[5 * epoch + n].case_id for n in range(5)} == {f"c{n}" for n in range(5)}


def test_image_and_labels_move_together():
    one = case((12, 12, 12))
    smooth = torch.nn.functional.avg_pool3d(one.image[None, None], 5, 1, 2)[0, 0]
    one = Case("a", smooth, (smooth > smooth.mean()).to(torch.uint8))
    for number in range(8):
        sample = VolumeDraws([one], spec((12, 12, 12), Padding.EDGE), BENT, seed=1)[number]
        inside = sample.labels == 1
        assert sample.image[0][inside].mean() > sample.image[0][~inside].mean() + 0.5


def test_flips_happen_half_of_the_time():
    one = case()
    flat = normalise(one.image.clone(), spec())
    draws = VolumeDraws([one], spec(), Affine(flip=(0,)), seed=0)
    flipped = sum(torch.allclose(draws[n].image[0], flat.flip(0), atol=1e-4) for n in range(80))
    straight = sum(torch.allclose(draws[n].image[0], flat, atol=1e-4) for n in range(80))
    assert flipped + straight == 80
    assert 24 < flipped < 56


@pytest.mark.parametrize(("padding", "value"), [(Padding.ZERO, 0.0), (Padding.EDGE, None)])
def test_what_lies_beyond_the_scan_is_what_inference_pads(padding, value):
    one = Case("a", torch.full((4, 4, 4), 300.0), torch.zeros(4, 4, 4, dtype=torch.uint8))
    chosen = spec((8, 8, 8), padding, Normalisation.WINDOW_TO_UNIT)
    corner = VolumeDraws([one], chosen, Affine(), seed=0)[0].image[0, 0, 0, 0]
    assert corner == (1.0 if value is None else value)


def test_a_tile_of_depth_one_is_a_slice_of_the_scan():
    one = case((8, 8, 5))
    sample = VolumeDraws([one], spec((8, 8, 1)), Affine(), seed=0)[3]
    assert sample.image.shape == (1, 8, 8)
    flat = normalise(one.image.clone(), spec())
    matches = [k for k in range(5) if torch.allclose(sample.image[0], flat[..., k], atol=1e-4)]
    assert len(matches) == 1
    assert torch.equal(sample.labels, one.labels[..., matches[0]])


def test_organs_are_found_when_they_are_asked_for():
    image = torch.zeros(40, 40, 40)
    labels = torch.zeros(40, 40, 40, dtype=torch.uint8)
    labels[30:33, 30:33, 30:33] = 1
    draws = VolumeDraws([Case("a", image, labels)], spec(), Affine(), seed=0, organ_share=1.0)
    assert all(draws[n].labels.any() for n in range(20))


def test_half_of_the_frames_drawn_are_background():
    classes = [3] * 5 + [0] * 40 + [1] * 2  # background is class 3 and rare here
    draws = FrameDraws(
        lambda n: torch.full((6, 8), n, dtype=torch.uint8),
        classes=classes,
        background=3,
        balance=Balance.HALF_BACKGROUND,
        tile=(4, 4),
        affine=Affine(),
        seed=0,
    )
    drawn = [int(draws[n].labels) for n in range(600)]
    assert 0.43 < drawn.count(3) / 600 < 0.57
    assert 0.18 < drawn.count(0) / 600 < 0.32
    assert 0.18 < drawn.count(1) / 600 < 0.32


def test_pictures_are_resized_and_standardised():
    picture = torch.arange(48, dtype=torch.uint8).reshape(1, 6, 8)
    labels = (picture[0] > 20).to(torch.uint8)
    draws = PictureDraws(lambda n: (picture, labels, f"p{n}"), count=2, tile=(6, 8), affine=Affine(), mean=10.0, sd=2.0, seed=0)
    sample = draws[0]
    assert torch.allclose(sample.image, (picture.float() - 10) / 2, atol=1e-4)
    assert torch.equal(sample.labels, labels)


def test_centre_crop_cuts_and_pads():
    image = torch.arange(24.0).reshape(1, 4, 6)
    assert torch.equal(centre_crop(image, (2, 2)), image[:, 1:3, 2:4])
    assert centre_crop(image, (6, 6)).shape == (1, 6, 6)
    assert centre_crop(image, (6, 4))[0, 1:5].equal(image[0, :, 1:5])


def test_batches_follow_from_their_position():
    draws = VolumeDraws([case(seed=n, name=f"c{n}") for n in range(4)], spec(), BENT, seed=0)
    small, large = DrawBatches(draws, size=1), DrawBatches(draws, size=2)
    (pair,) = large.batches(1, 2)
    singles = [batch.image for batch in small.batches(2, 4)]
    assert torch.equal(pair.image, torch.cat(singles))
    two_processes = [next(iter(small.batches(2 + rank, 4, stride=2))).image for rank in range(2)]
    assert torch.equal(pair.image, torch.cat(two_processes))
    assert len(list(small.batches(0, 7, stride=3))) == 3


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        VolumeDraws([], spec(), Affine(), seed=0)


def test_channels_are_shifted_each_by_its_own_number_within_the_pictures_range_and_seldom():
    picture = torch.stack([torch.full((6, 8), value) for value in (50.0, 100.0, 150.0)])
    picture[:, 0, 0], picture[:, 0, 1] = 0.0, 255.0
    labels = torch.zeros(6, 8, dtype=torch.uint8)

    def draws(**shift):
        return PictureDraws(
            lambda n: (picture.to(torch.uint8), labels, f"p{n}"),
            count=1,
            tile=(6, 8),
            affine=Affine(),
            mean=0.0,
            sd=1.0,
            seed=0,
            shift=ChannelShift(**shift),
        )

    shifted = [draws(most=20.0, chance=0.25)[n].image for n in range(200)]
    moved = [image for image in shifted if not torch.allclose(image, picture, atol=1e-3)]
    assert 30 < len(moved) < 70
    for image in moved:
        change = image[:, 3, 3] - picture[:, 3, 3]
        assert change.abs().max() <= 20
        assert len(set(change.tolist())) == 3
        assert 0 <= image.min() <= image.max() <= 255
    plain = [draws(**none)[4].image for none in ({}, {"most": 20.0}, {"chance": 1.0})]
    assert all(torch.equal(image, plain[0]) for image in plain)
    with pytest.raises(ValueError, match="chance"):
        ChannelShift(most=5, chance=2)
