"""Small nnU-Net models that are hard to agree with, and nnU-Net's own labels by them; runs in the peers' environment.

    PEERS_PYTHON benchmarks/nnunet_models.py CASES OUT [NAME...]
    python benchmarks/nnunet_agreement.py OUT --precision fp32

CASES holds ``cases/NAME.nii.gz`` (CT) and ``a/labels/NAME.nii.gz`` (organs 1 to 5) for iso_1 and aniso_1. Every model is
trained for a few steps on these two, or not at all, so that scores lie close together and each rounding of nnU-Net's counts.
Its labels are those of nnU-Net's predictor on a CPU, unchanged.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, tempfile.gettempdir())  # nnU-Net asks for them at import and never looks

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

with contextlib.redirect_stdout(io.StringIO()):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CASES = ("iso_1", "aniso_1")
ORGANS = ("pancreas", "liver", "spleen", "kidney_left", "kidney_right")
FEATURES = [8, 16, 24, 24]
INTENSITIES = {"mean": 121.8, "median": 116.0, "std": 33.6, "min": -419.0, "max": 298.0}
INTENSITIES |= {"percentile_00_5": 13.0, "percentile_99_5": 212.0}
AIR_HU = -900


@dataclass(frozen=True)
class Model:
    """What a model is, and what it is asked."""

    name: str
    steps: int = 0
    """Training steps of every fold; 0 leaves random weights."""
    folds: int = 1
    residual: bool = False
    spacing: tuple[float, ...] = (4.0, 3.6, 3.6)
    patch: tuple[int, ...] = (32, 48, 48)
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    normalisation: str = "CTNormalization"
    trained_with: str = ""
    """The normalisation in training, where it is another one."""
    masked: bool = False
    channel: str = "CT"
    configuration: str = "3d_fullres"
    resampling: str = "resample_data_or_seg_to_shape"
    regions: bool = False
    transpose: tuple[int, int, int] = (0, 1, 2)
    mirrored: tuple[str, ...] = field(default=())
    """The cases that are also asked for with mirroring along all axes."""


FLAT: dict[str, Any] = {
    "configuration": "2d", "spacing": (3.6, 3.6), "patch": (64, 64), "strides": ((1, 1), (2, 2), (2, 2), (2, 2)),
}  # fmt: skip
ANISOTROPIC: dict[str, Any] = {
    "spacing": (6.0, 1.6, 1.6), "patch": (16, 96, 96), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
}  # fmt: skip
MODELS = (
    Model("plain-folds", steps=60, folds=2),
    Model("resenc-folds", steps=60, folds=2, residual=True),
    Model("resenc-folds-random", folds=2, residual=True, mirrored=("iso_1",)),
    Model("zscore-other", steps=60, normalisation="ZScoreNormalization", trained_with="CTNormalization"),
    Model("mr-masked", steps=60, normalisation="ZScoreNormalization", masked=True, channel="MR"),
    Model("lowres", steps=60, configuration="3d_lowres", spacing=(6.0, 6.5, 6.5), patch=(24, 32, 32)),
    Model("flat-random", mirrored=("iso_1",), **FLAT),
    Model("flat-resenc-random", folds=2, residual=True, normalisation="ZScoreNormalization", **FLAT),
    Model("aniso-random", **ANISOTROPIC),
    Model("torch-random", resampling="resample_torch_fornnunet"),
    Model("regions-random", folds=3, regions=True, transpose=(1, 0, 2)),
)


def plans(model: Model, normalisation: str) -> dict[str, Any]:
    dims, stages = len(model.patch), len(FEATURES)
    parts = {"n_blocks_per_stage": [1, 2, 2, 2]} if model.residual else {"n_conv_per_stage": [2] * stages}
    kind = "ResidualEncoderUNet" if model.residual else "PlainConvUNet"
    arguments = {
        "n_stages": stages, "features_per_stage": FEATURES, "strides": [list(side) for side in model.strides],
        "kernel_sizes": [[3] * dims] * stages, **parts, "n_conv_per_stage_decoder": [1 if model.residual else 2] * (stages - 1),
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d", "conv_bias": True, "dropout_op": None, "dropout_op_kwargs": None,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    configuration: dict[str, Any] = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "batch_dice": False,
        "patch_size": list(model.patch), "spacing": list(model.spacing), "median_image_size_in_voxels": [42, 59, 78],
        "normalization_schemes": [normalisation], "use_mask_for_norm": [model.masked],
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}", "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    usual = model.resampling == "resample_data_or_seg_to_shape"
    for what, is_seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        said = {"is_seg": is_seg, "force_separate_z": None} | ({"order": order, "order_z": 0} if usual else {})
        configuration |= {f"resampling_fn_{what}": model.resampling, f"resampling_fn_{what}_kwargs": said}
    return {
        "dataset_name": "Dataset950_Hard", "plans_name": "nnUNetPlans", "image_reader_writer": "NibabelIOWithReorient",
        "original_median_spacing_after_transp": [3.0] * 3, "original_median_shape_after_transp": [56, 71, 94],
        "transpose_forward": list(model.transpose), "transpose_backward": np.argsort(model.transpose).tolist(),
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
        "configurations": {model.configuration: configuration},
    }  # fmt: skip


def dataset(model: Model) -> dict[str, Any]:
    numbers: dict[str, Any] = {"background": 0, **{name: label for label, name in enumerate(ORGANS, start=1)}}
    made = {"channel_names": {"0": model.channel}, "labels": numbers, "numTraining": 2, "file_ending": ".nii.gz"}
    if model.regions:
        numbers |= {"liver": [1, 2, 3], "spleen": [3, 4], "pancreas": [1, 5], "kidney_left": [4, 5], "kidney_right": [5]}
        made["regions_class_order"] = [3, 1, 2, 4, 5]
    return made | {"licence": "CC0-1.0"}


def trained(network: torch.nn.Module, images: list[tuple[torch.Tensor, torch.Tensor]], model: Model, seed: int) -> None:
    """A few steps on patches of both cases: enough to know organs, not to be sure of them."""
    random = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(model.steps):
        image, truth = images[random.integers(len(images))]
        organs = torch.nonzero(truth[0] > 0)
        middle = organs[random.integers(len(organs))].numpy()
        sides = zip(middle, model.patch, truth.shape[1:], strict=True)
        corner = [int(np.clip(m - side // 2, 0, size - side)) for m, side, size in sides]
        where = (slice(None), *(slice(c, c + side) for c, side in zip(corner, model.patch, strict=True)))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(image[where][None]), truth[where].clamp_min(0).long()).backward()
        optimiser.step()
    network.eval()


def padded(array: torch.Tensor, patch: tuple[int, ...]) -> torch.Tensor:
    more = [max(0, side - size) for side, size in zip(patch, array.shape[1:], strict=True)]
    return torch.nn.functional.pad(array, [n for add in reversed(more) for n in (0, add)])


def prepared(model: Model, root: Path, source: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Both cases and their organs as nnU-Net prepares them for training."""
    manager = PlansManager(plans(model, model.trained_with or model.normalisation))
    configuration = manager.get_configuration(model.configuration)
    found = []
    for case in CASES:
        image, truth = image_of(model, root, source, case), source / "a" / "labels" / f"{case}.nii.gz"
        preprocessor = configuration.preprocessor_class(verbose=False)
        made = preprocessor.run_case([str(image)], str(truth), manager, configuration, dataset(model))
        found.append(tuple(padded(torch.from_numpy(array.astype(np.float32)), model.patch) for array in made[:2]))
    return found


def image_of(model: Model, root: Path, source: Path, case: str) -> Path:
    """The scan; for MR a signal that is 0 in air, with the organs' order of brightness turned around."""
    ct = source / "cases" / f"{case}.nii.gz"
    if model.channel == "CT":
        return ct.resolve()
    made = root / "cases" / f"{case}_mr.nii.gz"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        scan = nib.load(ct)
        values = np.asarray(scan.dataobj)
        signal = np.where(values > AIR_HU, np.clip(700 - values, 1, 1700), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(signal, scan.affine), made)
    return made.resolve()


def write(model: Model, root: Path, source: Path) -> Path:
    """The model folder as nnU-Net's trainer leaves it."""
    folder = root / model.name / "model" / "Dataset950_Hard" / f"nnUNetTrainer__nnUNetPlans__{model.configuration}"
    folder.mkdir(parents=True)
    written = plans(model, model.normalisation)
    (folder / "plans.json").write_text(json.dumps(written, indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset(model), indent=1))
    described = written["configurations"][model.configuration]["architecture"]
    heads = len(ORGANS) + (0 if model.regions else 1)
    images = prepared(model, root, source) if model.steps else []
    for fold in range(model.folds):
        torch.manual_seed(fold)
        network = get_network_from_plans(
            described["network_class_name"], described["arch_kwargs"], described["_kw_requires_import"], 1, heads,
            deep_supervision=False,
        )  # fmt: skip
        trained(network, images, model, fold)
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer", "current_epoch": model.steps,
            "init_args": {"configuration": model.configuration, "fold": fold}, "grad_scaler_state": None,
            "inference_allowed_mirroring_axes": tuple(range(len(model.patch))),
        }  # fmt: skip
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def labels_of(folder: Path, image: Path, output: Path, *, mirror: bool) -> None:
    """nnU-Net's own labels of a scan."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor.initialize_from_trained_model_folder(str(folder), None)
        predictor.predict_from_files_sequential([[str(image)]], [str(output)])


def main() -> None:
    source, root, chosen = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    for model in MODELS:
        if chosen and model.name not in chosen:
            continue
        folder = write(model, root, source)
        home, references = root / model.name, []
        (home / "labels").mkdir()
        for case in CASES:
            image = image_of(model, root, source, case)
            for mirror in (False, True) if case in model.mirrored else (False,):
                name = f"labels/{case}{'.mirror' if mirror else ''}"
                labels_of(folder, image, home / name, mirror=mirror)
                references.append({"case": str(image), "labels": f"{name}.nii.gz", "mirror": mirror, "orientation": None})
        described = {"id": model.name, "model": str(folder.relative_to(home)), "references": references}
        (home / "reference.json").write_text(json.dumps(described, indent=1))
        print(model.name, flush=True)


if __name__ == "__main__":
    main()
