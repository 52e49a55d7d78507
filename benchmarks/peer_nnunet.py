"""nnU-Net v2's own code (predictor, preprocessor, export) around the shared network; runs in the peers' environment.

``--totalseg`` wraps it as TotalSegmentator does: order 1 resampling to 2 mm before, order 0 after, NIfTI files in between.
"""

import time

STARTED = time.perf_counter()

import contextlib  # noqa: E402
import io  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

warnings.filterwarnings("ignore")
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, tempfile.gettempdir())  # nnU-Net asks for them at import and never looks

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from options import WINDOW_HU, pipeline_options  # noqa: E402
from shared_network import load  # noqa: E402
from stages import Stages  # noqa: E402

with contextlib.redirect_stdout(io.StringIO()):
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RESAMPLER = "resample_data_or_seg_to_shape"
CONFIGURATION = "3d_fullres"


def resampling(*, is_seg: bool, order: int) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def plans_of(patch: tuple[int, ...], spacing_mm: float) -> dict[str, Any]:
    """A plans file with nnU-Net's defaults, for the shared spacing, tile and intensity rule."""
    low, high = WINDOW_HU
    intensity = {"mean": 0.0, "std": high, "percentile_00_5": low, "percentile_99_5": high, "median": 0, "min": 0, "max": 0}
    configuration = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [200, 200, 250],
        "spacing": [spacing_mm] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLER,
        "resampling_fn_seg": RESAMPLER,
        "resampling_fn_probabilities": RESAMPLER,
        "resampling_fn_data_kwargs": resampling(is_seg=False, order=3),
        "resampling_fn_seg_kwargs": resampling(is_seg=True, order=1),
        "resampling_fn_probabilities_kwargs": resampling(is_seg=False, order=1),
        "batch_dice": False,
        "architecture": {"network_class_name": "x", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    return {
        "dataset_name": "Dataset999_bench",
        "plans_name": "bench",
        "original_median_spacing_after_transp": [spacing_mm] * 3,
        "original_median_shape_after_transp": [200, 200, 250],
        "image_reader_writer": "SimpleITKIOWithReorient",
        "transpose_forward": [2, 1, 0],
        "transpose_backward": [2, 1, 0],
        "experiment_planner_used": "x",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensity},
        "configurations": {CONFIGURATION: configuration},
    }


class Predictor:
    """nnU-Net's classes, told to use the shared network and to say when each of their steps is done."""

    def __init__(self, network: torch.nn.Module, chosen: Any, stages: Stages) -> None:
        # nnU-Net's arrays are (z, y, x) after reading; transpose_forward turns them into (x, y, z), the order of the patch.
        self.plans = PlansManager(plans_of(tuple(chosen.patch), chosen.spacing))
        self.configuration = self.plans.get_configuration(CONFIGURATION)
        classes = {"background": 0, **{f"c{index}": index for index in range(1, chosen.classes)}}
        self.dataset = {"channel_names": {"0": "CT"}, "labels": classes, "numTraining": 1, "file_ending": ".nii.gz"}
        self.stages = stages
        self.threads = torch.get_num_threads()
        self.predictor = nnUNetPredictor(
            tile_step_size=1 - chosen.overlap,
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=True,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        state = [network.state_dict()]
        self.predictor.manual_initialization(
            network, self.plans, self.configuration, state, self.dataset, "nnUNetTrainer", None
        )
        self.predictor.network = network
        self.files = self.plans.image_reader_writer_class()

    def labels(self, source: Path) -> tuple[np.ndarray, dict[str, Any]]:
        stages = self.stages
        data, properties = self.files.read_images([os.fspath(source)])
        stages.lap("read")
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(data, None, properties, self.plans, self.configuration, self.dataset)
        stages.lap("prepare")
        with contextlib.redirect_stdout(io.StringIO()):
            logits = self.predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
        stages.lap("network")
        manager = self.predictor.label_manager
        to_labels = manager.convert_logits_to_segmentation

        def timed(resampled: Any) -> Any:
            stages.lap("resample_out")
            result = to_labels(resampled)
            stages.lap("argmax")
            return result

        manager.convert_logits_to_segmentation = timed
        found = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.numpy(), self.plans, self.configuration, manager, properties, False, self.threads
        )
        stages.lap("argmax")
        return found, properties


def run_nnunet(predictor: Predictor, source: Path, output: Path) -> None:
    found, properties = predictor.labels(source)
    predictor.files.write_seg(found, os.fspath(output), properties)
    predictor.stages.lap("write")


def run_totalseg(predictor: Predictor, source: Path, output: Path, *, spacing_mm: float) -> None:
    from totalsegmentator.alignment import as_closest_canonical, undo_canonical
    from totalsegmentator.resampling import change_spacing

    stages = predictor.stages
    stages.lap("import")
    original = nib.load(source)
    image = nib.Nifti1Image(original.get_fdata(), original.affine)
    stages.lap("read")
    image = as_closest_canonical(image)
    coarse = change_spacing(image, [spacing_mm] * 3, order=1, dtype=np.int32, nr_cpus=1)
    stages.lap("prepare")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nib.save(coarse, folder / "s01_0000.nii.gz")
        del coarse
        stages.lap("temporary_files")
        found, properties = predictor.labels(folder / "s01_0000.nii.gz")
        predictor.files.write_seg(found, os.fspath(folder / "s01.nii.gz"), properties)
        stages.lap("temporary_files")
        small = nib.load(folder / "s01.nii.gz")
        small = nib.Nifti1Image(np.asarray(small.dataobj), small.affine)
        full = change_spacing(
            small, [spacing_mm] * 3, image.shape, order=0, dtype=np.uint8, nr_cpus=1, force_affine=image.affine
        )
        stages.lap("resample_out")
    full = undo_canonical(full, original)
    nib.save(nib.Nifti1Image(full.get_fdata().astype(np.uint8), original.affine), output)
    stages.lap("write")


def main() -> None:
    parser = pipeline_options("nnU-Net's pipeline, or TotalSegmentator's around it")
    parser.add_argument("--totalseg", action="store_true")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    stages = Stages("totalseg" if chosen.totalseg else "nnunet", started=STARTED)
    stages.lap("import")
    predictor = Predictor(load(chosen.net, classes=chosen.classes, fake=chosen.fake_net), chosen, stages)
    stages.lap("load_net")
    if chosen.totalseg:
        run_totalseg(predictor, chosen.input, chosen.output.resolve(), spacing_mm=chosen.spacing)
    else:
        run_nnunet(predictor, chosen.input, chosen.output.resolve())
    stages.done()


if __name__ == "__main__":
    main()
