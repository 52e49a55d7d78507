"""agseg's own functions around the shared network, as ``agseg segment`` calls them; prints one JSON line.

Modes: ``exact`` is fp32; ``default`` is what the command takes on this machine (bf16 where the CPU has it); ``fast`` adds
``--fast`` (body crop, largest tiles).
"""

import time

STARTED = time.perf_counter()

import torch  # noqa: E402
from options import WINDOW_HU, pipeline_options  # noqa: E402
from shared_network import load  # noqa: E402
from stages import Stages  # noqa: E402

from agseg.inference.allocator import keep_freed_memory  # noqa: E402
from agseg.inference.device import Precision, choose_precision  # noqa: E402
from agseg.inference.network import ReadyNetwork  # noqa: E402
from agseg.inference.segment import Settings, segment_volume  # noqa: E402
from agseg.io.discover import discover  # noqa: E402
from agseg.io.nifti import write_mask  # noqa: E402
from agseg.io.read import read_volume  # noqa: E402
from agseg.labels import LabelSet  # noqa: E402
from agseg.models.fold import fold_batch_norm  # noqa: E402
from agseg.weights.input_spec import InputSpec, Normalisation  # noqa: E402

MODES = {"exact": Precision.FP32, "default": Precision.AUTO, "fast": Precision.AUTO}


def main() -> None:
    parser = pipeline_options("agseg's pipeline")
    parser.add_argument("--mode", choices=MODES, default="default")
    chosen = parser.parse_args()
    keep_freed_memory()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    stages = Stages("agseg", started=STARTED)
    stages.lap("import")
    device = torch.device("cpu")
    precision = choose_precision(MODES[chosen.mode], device)
    module = fold_batch_norm(load(chosen.net, classes=chosen.classes, fake=chosen.fake_net))
    network = ReadyNetwork([module], device=device, precision=precision)
    stages.lap("load_net")
    discovery = discover([chosen.input])
    volume = read_volume(discovery.studies[0])
    stages.lap("read")
    spec = InputSpec(
        modality="CT",
        axis_codes="RAS",
        spacing_mm=(chosen.spacing, chosen.spacing, chosen.spacing),
        window_hu=WINDOW_HU,
        normalisation=Normalisation.WINDOW_TO_SYMMETRIC,
        tile=tuple(chosen.patch),
        overlap=chosen.overlap,
    )
    labels = LabelSet.from_mapping({index: f"organ{index}" for index in range(1, chosen.classes)})
    found = segment_volume(volume, network, spec=spec, labels=labels, settings=Settings(fast=chosen.mode == "fast"))
    stages.lap("segment")
    named = {"prepare": "prepare", "predict": "network", "restore": "restore"}
    stages.split("segment", {named[stage]: seconds for stage, seconds in found.seconds.items()})
    write_mask(chosen.output, found.mask.labels, found.mask.grid)
    stages.lap("write")
    stages.done(mode=chosen.mode, precision=precision.value)


if __name__ == "__main__":
    main()
