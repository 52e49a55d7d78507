"""MONAI as its bundles chain it: orientation, spacing, window, sliding window with a Gaussian, softmax, inversion, argmax.

Runs in the peers' environment (benchmarks/.venv) and prints one JSON line.
"""

import time

STARTED = time.perf_counter()

import os  # noqa: E402
import warnings  # noqa: E402

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from monai.inferers import sliding_window_inference  # noqa: E402
from monai.transforms import (  # noqa: E402
    Activationsd,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImage,
    ScaleIntensityRanged,
    Spacingd,
)
from options import WINDOW_HU, pipeline_options  # noqa: E402
from shared_network import load  # noqa: E402
from stages import Stages  # noqa: E402


@torch.no_grad()
def main() -> None:
    chosen = pipeline_options("MONAI's pipeline").parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    stages = Stages("monai", started=STARTED)
    stages.lap("import")
    network = load(chosen.net, classes=chosen.classes, fake=chosen.fake_net)
    stages.lap("load_net")
    steps = [
        ("read", LoadImaged("image")),
        ("read", EnsureChannelFirstd("image")),
        ("prepare", Orientationd("image", axcodes="RAS")),
        ("prepare", Spacingd("image", pixdim=[chosen.spacing] * 3, mode="bilinear")),
        ("prepare", ScaleIntensityRanged("image", *WINDOW_HU, -1, 1, clip=True)),
        ("prepare", EnsureTyped("image")),
    ]
    data = {"image": os.fspath(chosen.input)}
    for stage, step in steps:
        data = step(data)
        stages.lap(stage)
    scores = sliding_window_inference(
        data["image"][None], tuple(chosen.patch), 1, network, overlap=chosen.overlap, mode="gaussian"
    )
    stages.lap("network")
    data["pred"] = scores[0]
    del scores
    data = Activationsd("pred", softmax=True)(data)
    stages.lap("softmax")
    chain = Compose([step for _, step in steps])
    data = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=False, to_tensor=True)(data)
    stages.lap("resample_out")
    data = AsDiscreted("pred", argmax=True)(data)
    stages.lap("argmax")
    output = chosen.output.resolve()
    save = SaveImage(
        output_dir=output.parent,
        output_postfix="",
        output_dtype="uint8",
        separate_folder=False,
        print_log=False,
        resample=False,
    )
    save(data["pred"], filename=os.fspath(output).removesuffix(".nii.gz"))
    stages.lap("write")
    stages.done(grid=list(data["image"].shape[1:]))


if __name__ == "__main__":
    main()
