"""OBELISK's sampling rule by hand, and its four published folds."""

from __future__ import annotations

import pytest
import torch

from agseg.models.load import load_strict
from agseg.models.obelisk import _sampled
from agseg.models.registry import build


def ramp(axis: int) -> torch.Tensor:
    """An image that grows from -1 to 1 along one axis."""
    shape = [1, 1, 1, 1, 1]
    shape[2 + axis] = 9
    return torch.linspace(-1, 1, 9).reshape(shape).expand(1, 1, 9, 9, 9).contiguous()


@pytest.mark.parametrize(("component", "axis"), [(0, 2), (1, 1), (2, 0)])
def test_offset_components_run_along_the_axes_in_reverse(component, axis):
    offset = torch.zeros(1, 1, 1, 1, 3)
    offset[..., component] = 0.25
    for image_axis in range(3):
        sampled = _sampled(ramp(image_axis), offset, [5, 5, 5])
        expected = torch.linspace(-1, 1, 5) + (0.25 if image_axis == axis else 0.0)
        along = sampled[0, 0].movedim(image_axis, 0)[:, 2, 2]
        torch.testing.assert_close(along[:4], expected[:4])


def test_sampling_outside_the_box_is_zero():
    offset = torch.full((1, 2, 1, 1, 3), 3.0)
    offset[:, 1] = 0.0
    sampled = _sampled(torch.ones(2, 1, 8, 8, 8), offset, [3, 4, 5])
    assert sampled.shape == (2, 2, 3, 4, 5)
    assert torch.count_nonzero(sampled[:, 0]) == 0
    torch.testing.assert_close(sampled[:, 1], torch.ones(2, 3, 4, 5))


def test_file_holds_the_published_number_of_values():
    network = build("obelisk-hybrid")
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 232_420
    assert network.offset1.numel() + network.offset2.numel() == 1_920


@pytest.mark.shared
@pytest.mark.parametrize("fold", [1, 2, 3, 4])
def test_published_folds_load_strictly_and_know_a_body_from_air(shared_data, fold):
    state = torch.load(
        shared_data / "weights" / "obelisk_tcia" / f"obeliskhybrid_tcia_fold{fold}.pth", weights_only=True, map_location="cpu"
    )
    network = load_strict(build("obelisk-hybrid"), state).eval()
    with torch.no_grad():
        air = network(torch.zeros(1, 1, 16, 16, 16)).argmax(dim=1)
    assert torch.count_nonzero(air) == 0


@pytest.mark.shared
@pytest.mark.slow
def test_a_fold_finds_the_liver_of_a_real_contrast_ct_and_no_mirrored_one(shared_data):
    """Against a pseudo-label of the ensemble: reading order, axes and offsets are right, or this falls apart."""
    sitk = pytest.importorskip("SimpleITK")
    folder = next((shared_data / "ct_unlabelled").glob("cptac*"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "dicom")))
    image = reader.Execute()
    label = sitk.ReadImage(str(next(folder.glob("*_obelisk.nii.gz"))))
    label = sitk.Resample(label, image, sitk.Transform(), sitk.sitkNearestNeighbor)
    # [z, y, x] in LPS to x -> left, y -> anterior, z -> inferior; the body's box of this scan, cut by hand.
    hu, reference = (
        torch.from_numpy(sitk.GetArrayFromImage(volume)[::-1, ::-1].transpose(2, 1, 0)[34:475, 70:406].copy()).float()
        for volume in (image, label)
    )
    box = torch.nn.functional.interpolate((hu.clamp_min(-1024) / 1024 + 1)[None, None], size=(144, 144, 144), mode="trilinear")
    path = shared_data / "weights" / "obelisk_tcia" / "obeliskhybrid_tcia_fold1.pth"
    network = load_strict(build("obelisk-hybrid"), torch.load(path, weights_only=True)).eval()

    def liver(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            scores = network(x).softmax(dim=1)
        return torch.nn.functional.interpolate(scores, size=hu.shape, mode="trilinear").argmax(dim=1)[0] == 6

    def dice(a: torch.Tensor, b: torch.Tensor) -> float:
        return (2 * (a & b).sum() / (a.sum() + b.sum())).item()

    assert dice(liver(box), reference == 6) > 0.9
    assert dice(liver(box.flip(2)).flip(0), reference == 6) < 0.6
