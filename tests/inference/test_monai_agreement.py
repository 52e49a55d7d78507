"""MONAI's own chain and agseg's on the same random weights, at MONAI's grid: the labels agree to 0.999.

MONAI keeps the first voxel centre when it resamples, and so does agseg (``Grid.resampled``), so the model grids match.
"""

import numpy as np
import pytest
import torch

from agseg.grid import Grid
from agseg.inference.network import ReadyNetwork
from agseg.inference.segment import segment_volume
from agseg.labels import LabelSet
from agseg.models.precision import Precision
from agseg.models.registry import build
from agseg.volume import Volume
from agseg.weights.manifest import Manifest

monai = pytest.importorskip("monai", reason="the extra 'monai' is not installed")

pytestmark = pytest.mark.slow

TILE = (48, 48, 32)


def scan():
    """Smooth structures in HU on a grid stored LPS, with odd spacing."""
    generator = torch.Generator().manual_seed(7)
    # No voxel is near 0 HU: MONAI's rule for "non-zero voxels" jumps there, and the last bit would decide.
    coarse = torch.randn((1, 1, 9, 8, 7), generator=generator).clamp(-2.5, 2.5) * 120 + 500
    fine = torch.nn.functional.interpolate(coarse, size=(78, 70, 44), mode="trilinear")[0, 0]
    affine = np.diag([-1.3, -1.1, 2.7, 1.0])
    affine[:3, 3] = (40.0, 31.0, -52.0)
    return Volume(np.asfortranarray(fine.round().to(torch.int16).numpy()), Grid((78, 70, 44), affine))


def monai_labels(volume, module, spec, tmp_path):
    """The bundle's chain: load, orient, space, scale, sliding window, softmax, invert, argmax."""
    import nibabel as nib
    from monai.data import decollate_batch
    from monai.inferers import sliding_window_inference
    from monai.transforms import (
        Activationsd,
        AsDiscreted,
        Compose,
        EnsureChannelFirstd,
        Invertd,
        LoadImaged,
        NormalizeIntensityd,
        Orientationd,
        ScaleIntensityd,
        ScaleIntensityRanged,
        Spacingd,
    )

    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(volume.voxels, volume.grid.affine), path)
    if spec.window_hu is not None:
        scale = [ScaleIntensityRanged("image", *spec.window_hu, 0.0, 1.0, clip=True)]
    else:
        scale = [NormalizeIntensityd("image", nonzero=True), ScaleIntensityd("image", minv=-1.0, maxv=1.0)]
    before = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS"),
            Spacingd("image", pixdim=spec.spacing_mm, mode="bilinear"),
            *scale,
        ]
    )
    item = before({"image": str(path)})
    with torch.inference_mode():
        item["pred"] = sliding_window_inference(
            item["image"][None], TILE, 1, module, overlap=spec.overlap, mode="gaussian", padding_mode="replicate"
        )[0]
    after = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
        ]
    )
    assert decollate_batch is not None
    return np.asarray(after(item)["pred"][0]).astype(np.uint8)


@pytest.mark.parametrize("entry_id", ["monai-spleen", "monai-wholebody-3mm"])
def test_labels_agree_with_monai(entry_id, tmp_path):
    from dataclasses import replace

    entry = Manifest.load().entry(entry_id)
    torch.manual_seed(11)
    config = {**entry.config, "init_filters": 8} if "segresnet" in entry.architecture.lower() else entry.config
    module = build(entry.architecture, config).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    spec = replace(entry.input, tile=TILE, window_hu=(200.0, 800.0) if entry.input.window_hu else None)
    volume = scan()
    expected = monai_labels(volume, module, spec, tmp_path)
    network = ReadyNetwork([module], device=torch.device("cpu"), precision=Precision.FP32)
    labels = LabelSet.from_mapping({n: f"class_{n}" for n in range(1, entry.labels.class_count)})
    found = segment_volume(volume, network, spec=spec, labels=labels).mask.labels
    assert len(np.unique(found)) > 1
    assert (found == expected).mean() >= 0.999
