"""A model folder of nnU-Net at the size that it plans for a trunk CT: python -m benchmarks.nnunet_full_size FOLDER

Six stages of 32 to 320 features, 31 million parameters, 25 classes, tiles of 128 x 128 x 128 at 1.5 mm, random weights. What
such a network says is noise; how long it takes, and what is done with 25 scores per voxel, is not. Then, for example:

    agseg weights import FOLDER --as full-size --orientation stored
    python -m benchmarks.command --cases 300 --rounds 1 --options "--weights full-size --no-preview" \\
        --peer "nnU-Net=nnUNetv2_predict_from_modelfolder -i {input} -o {output} -m FOLDER/MODEL -f 0 -device cpu --disable_tta"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from agseg.models.registry import build

FEATURES = [32, 64, 128, 256, 320, 320]
KERNELS = [[3, 3, 3]] * 6
STRIDES = [[1, 1, 1], *[[2, 2, 2]] * 5]
CONVOLUTIONS, CONVOLUTIONS_UP = [2] * 6, [2] * 5
CLASSES, PATCH, SPACING_MM = 25, [128, 128, 128], [1.5, 1.5, 1.5]
MODEL = "Dataset900_FullSize/nnUNetTrainer__nnUNetPlans__3d_fullres"


def _resampling(order: int) -> dict[str, object]:
    return {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}


def plans() -> dict[str, object]:
    """The part of ``plans.json`` that counts at prediction, as nnU-Net 2.5 and newer writes it."""
    network = {
        "n_stages": len(FEATURES), "features_per_stage": FEATURES, "kernel_sizes": KERNELS, "strides": STRIDES,
        "n_conv_per_stage": CONVOLUTIONS, "n_conv_per_stage_decoder": CONVOLUTIONS_UP, "conv_bias": True,
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": PATCH, "spacing": SPACING_MM, "median_image_size_in_voxels": [300, 273, 273], "batch_dice": False,
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": _resampling(3),
        "resampling_fn_seg": "resample_data_or_seg_to_shape", "resampling_fn_seg_kwargs": _resampling(1) | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape", "resampling_fn_probabilities_kwargs": _resampling(1),
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    values = {"mean": 20.0, "median": 30.0, "std": 150.0, "min": -1000.0, "max": 1500.0}
    values |= {"percentile_00_5": -900.0, "percentile_99_5": 300.0}
    return {
        "dataset_name": "Dataset900_FullSize", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": SPACING_MM, "original_median_shape_after_transp": [300, 273, 273],
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": values},
    }  # fmt: skip


def checkpoint() -> dict[str, object]:
    """Random weights under nnU-Net's names, each tensor as often as its checkpoints hold it; coarser heads are 0."""
    torch.manual_seed(0)
    network = build(
        "nnunet-plain",
        {"dims": 3, "classes": CLASSES, "features_per_stage": FEATURES, "kernel_sizes": KERNELS, "strides": STRIDES,
         "n_conv_per_stage": CONVOLUTIONS, "n_conv_per_stage_decoder": CONVOLUTIONS_UP},
    )  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for key, tensor in network.state_dict().items():
        # With deep supervision off, nnU-Net's network still has a head per stage of the decoder, coarsest first.
        named = key.replace("decoder.seg_layer.", f"decoder.seg_layers.{len(FEATURES) - 2}.")
        state[named] = tensor
        state[named.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")] = tensor
    for stage, features in enumerate(FEATURES[-2:0:-1]):
        state[f"decoder.seg_layers.{stage}.weight"] = torch.zeros(CLASSES, features, 1, 1, 1)
        state[f"decoder.seg_layers.{stage}.bias"] = torch.zeros(CLASSES)
    state |= {f"decoder.{key}": tensor for key, tensor in state.items() if key.startswith("encoder.")}
    return {
        "network_weights": state, "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": (0, 1, 2),
        "init_args": {"configuration": "3d_fullres", "fold": 0}, "current_epoch": 0, "grad_scaler_state": None,
    }  # fmt: skip


def main() -> None:
    """Write the folder."""
    folder = Path(sys.argv[1]) / MODEL
    (folder / "fold_0").mkdir(parents=True)
    names = {"background": 0, **{f"organ_{label}": label for label in range(1, CLASSES)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz", "licence": "CC0-1.0"}
    (folder / "plans.json").write_text(json.dumps(plans(), indent=2), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=2), encoding="utf-8")
    torch.save(checkpoint(), folder / "fold_0" / "checkpoint_final.pth")
    print(folder)


if __name__ == "__main__":
    main()
