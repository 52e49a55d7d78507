"""Model folders of nnU-Net v2 as its own trainer writes them, with random weights: no nnU-Net needed."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agseg.models.registry import build

FEATURES, STRIDES = [4, 6], [[1, 1, 1], [2, 2, 2]]

CONFIGURATION: dict[str, Any] = {
    "patch_size": [8, 16, 12],
    "spacing": [4.0, 3.1, 3.0],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": FEATURES,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
            "strides": STRIDES,
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}

PLANS: dict[str, Any] = {
    "image_reader_writer": "NibabelIOWithReorient",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {"3d_fullres": CONFIGURATION},
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 20.0, "std": 60.0, "percentile_00_5": -100.0, "percentile_99_5": 200.0}
    },
}

DATASET: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "Left Kidney": 2, "spleen": 3},
    "licence": "CC0-1.0",
    "file_ending": ".nii.gz",
}


def old_plans() -> dict[str, Any]:
    """The same plans as nnU-Net wrote them until 2023."""
    plans = copy.deepcopy(PLANS)
    configuration = plans["configurations"]["3d_fullres"]
    del configuration["architecture"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "pool_op_kernel_sizes": STRIDES,
        "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "num_pool_per_axis": [1, 1, 1],
    }
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    return plans


def weights(*, heads: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """A network's tensors under nnU-Net's names, every one as often as its checkpoints hold it."""
    torch.manual_seed(seed)
    network = build(
        "nnunet-plain",
        {"dims": 3, "classes": heads, "features_per_stage": FEATURES, "kernel_sizes": [3, 3], "strides": STRIDES,
         "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]},
    )  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for key, tensor in network.state_dict().items():
        named = key.replace("decoder.seg_layer.", "decoder.seg_layers.0.")
        state[named] = tensor
        state[named.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")] = tensor
    for key, tensor in list(state.items()):
        if key.startswith("encoder."):
            state[f"decoder.{key}"] = tensor
    return state


def write_model(
    root: Path,
    *,
    name: str = "Dataset901_Toy",
    plans: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    configuration: str = "3d_fullres",
    states: dict[str, dict[str, torch.Tensor]] | None = None,
    extra: dict[str, Any] | None = None,
    mirror: tuple[int, ...] | None = (0, 1, 2),
) -> Path:
    """A model folder below ``root``, with one checkpoint per fold."""
    folder = root / name / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans or PLANS))
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    for fold, state in (states or {"0": weights()}).items():
        (folder / f"fold_{fold}").mkdir()
        content = {
            "network_weights": state,
            "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float32(0.5), np.float64(0.6)], "train_losses": [np.float32(-0.1)]},
            "_best_ema": np.float32(0.6),
            "current_epoch": 7,
            "init_args": {"configuration": configuration, "fold": 0, "device": torch.device("cpu"), "plans": plans or PLANS},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": mirror,
        }
        torch.save(content | (extra or {}), folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def zipped(folder: Path, path: Path) -> Path:
    """The ZIP of a folder, as nnU-Net exports it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path
