"""What the network is shown: 224 rows by 288 columns, upright; and that its maps are where the evidence is."""

import numpy as np
import pytest
import torch
from PIL import Image

from agseg.errors import UsageError
from agseg.models.registry import build
from agseg.ultrasound.planes import ORIGINAL_GAIN, STORED_SHAPE, PlaneInput, PlaneNetwork
from agseg.ultrasound.timeline import PLANES
from agseg.weights.input_spec import InputSpec, Normalisation

ORIGINAL = PlaneInput(STORED_SHAPE, ORIGINAL_GAIN)
ATTENTION = PlaneInput((208, 272))


def network(architecture="ag-sononet-8", spec=ATTENTION):
    torch.manual_seed(0)
    return PlaneNetwork(build(architecture, {}), classes=PLANES, spec=spec, device=torch.device("cpu"))


def test_the_input_is_224_rows_by_288_columns_with_the_patient_upright():
    view = np.zeros((619, 793, 3), np.uint8)
    view[:100, :60] = 255  # bright in the upper left corner
    prepared = ORIGINAL.prepare(view)
    assert prepared.shape == (1, 224, 288)
    assert prepared.dtype == np.float32
    bright = prepared[0] > 0
    rows, columns = np.nonzero(bright)
    assert rows.max() == pytest.approx(224 * 100 / 619, abs=2)
    assert columns.max() == pytest.approx(288 * 60 / 793, abs=2)
    # The port's slip would be 288 high by 224 wide.
    port = np.asarray(Image.fromarray(view).resize((224, 288), Image.Resampling.BILINEAR))
    assert port.shape[:2] == (288, 224)


def test_mean_deviation_and_the_factor_of_255(rng):
    view = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    original = ORIGINAL.prepare(view)
    assert original.mean() == pytest.approx(0, abs=1e-2)
    assert original.std() == pytest.approx(255, rel=1e-4)
    attention = ATTENTION.prepare(view)
    assert attention.shape == (1, 208, 272)
    assert attention.std() == pytest.approx(1, rel=1e-4)


def test_brightness_and_contrast_do_not_matter(rng):
    view = rng.integers(40, 120, (224, 288, 3), dtype=np.uint8)
    assert np.allclose(ORIGINAL.prepare(view), ORIGINAL.prepare(2 * view), rtol=1e-4, atol=1e-3)


def test_a_blank_frame_stays_blank_and_finite():
    assert not ORIGINAL.prepare(np.full((300, 400, 3), 17, np.uint8)).any()


def test_the_central_part_covers_the_central_part_of_the_view():
    assert ATTENTION.seen((0, 0, 288, 224)) == (8, 8, 280, 216)
    assert ORIGINAL.seen((81, 115, 874, 734)) == (81, 115, 874, 734)


def test_the_input_follows_from_the_weights():
    spec = InputSpec("US", normalisation=Normalisation.ZSCORE, tile=(224, 288, 1))
    assert PlaneInput.of(spec, family="sononet-original") == ORIGINAL
    assert PlaneInput.of(spec, family="ag-sononet").gain == 1
    with pytest.raises(UsageError):
        PlaneInput.of(
            InputSpec(
                "CT", axis_codes="RAS", spacing_mm=(2.0, 2.0, 2.0), normalisation=Normalisation.ZSCORE, tile=(96, 96, 96)
            ),
            family="ag-sononet",
        )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sononet-8", "ag-sononet-8", "ag-sononet-ft-8", "ag-sononet-ds-8"])
def test_every_classifier_gives_probabilities_and_maps(architecture, rng):
    classifier = network(architecture)
    frames = [ATTENTION.prepare(rng.integers(0, 256, (224, 288, 3), dtype=np.uint8)) for _ in range(3)]
    probabilities = classifier.probabilities(frames)
    assert probabilities.shape == (3, 14)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # A frame's result does not depend on its neighbours in the batch.
    assert np.allclose(classifier.probabilities(frames[1:2])[0], probabilities[1], atol=1e-5)
    maps = classifier.maps(frames[0], plane="Femur")
    assert len(maps) == (1 if architecture == "sononet-8" else 3)
    assert all(one.shape == (208, 272) and np.isfinite(one).all() and one.max() <= 1 + 1e-6 for one in maps)


def test_folded_batch_norms_change_nothing(rng):
    torch.manual_seed(0)
    module = build("sononet-8", {}).eval()
    classifier = PlaneNetwork(module, classes=PLANES, spec=ATTENTION, device=torch.device("cpu"))
    frame = ATTENTION.prepare(rng.integers(0, 256, (224, 288, 3), dtype=np.uint8))
    with torch.inference_mode():
        expected = module(torch.from_numpy(frame)[None]).numpy()
    assert np.allclose(classifier.probabilities([frame]), expected, atol=1e-4)


@pytest.mark.slow
def test_evidence_is_told_where_its_scale_is_known_and_changes_no_probability():
    torch.manual_seed(0)
    module = build("sononet16-original", {}).eval()
    device = torch.device("cpu")
    frames = [np.random.default_rng(seed).normal(0, 1, (1, 224, 288)).astype(np.float32) for seed in range(2)]
    plain = PlaneNetwork(module, classes=PLANES, spec=PlaneInput(), device=device)
    assert plain.classify(frames)[1] is None
    weighed = PlaneNetwork(module, classes=PLANES, spec=PlaneInput(), device=device, least_evidence=6.5)
    probabilities, evidence = weighed.classify(frames)
    assert np.allclose(probabilities, plain.probabilities(frames), atol=1e-5)
    with torch.inference_mode():
        logits = module.scores(torch.from_numpy(np.stack(frames)))[0]
    assert np.allclose(evidence, logits.exp().sum(dim=1).log().numpy(), rtol=1e-3)
    assert np.allclose(logits.softmax(dim=1).numpy(), probabilities, atol=1e-4)
