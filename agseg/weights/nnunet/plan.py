"""``plans.json`` and ``dataset.json``: what counts at inference, by an allow-list.

nnU-Net imports whatever a plan names. Here every class and function is a key of a table, and what no table has is refused by
its name. Today's plans and those without ``architecture`` (up to 2023) give the same :class:`Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agseg.weights.nnunet.architecture import network_config
from agseg.weights.nnunet.facts import Facts
from agseg.weights.nnunet.naming import organ_name

_READERS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
"""Orientation that each image reader of nnU-Net turns a scan to; None takes the voxels as they are stored."""

_SCHEMES = {
    ("CTNormalization", False): "ct",
    ("CTNormalization", True): "ct",
    ("ZScoreNormalization", False): "zscore",
    ("ZScoreNormalization", True): "zscore_masked",
    ("NoNormalization", False): "none",
    ("NoNormalization", True): "none",
    ("RescaleTo01Normalization", False): "rescale_to_unit",
    ("RescaleTo01Normalization", True): "rescale_to_unit",
}
"""``(scheme, use_mask_for_norm)`` to agseg's name."""

_ORDERS = {1: "linear", 3: "cubic"}
_RESAMPLERS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet")


@dataclass(frozen=True)
class Plan:
    """What one configuration of a model folder needs.

    Parameters
    ----------
    configuration
        Its name, e.g. ``3d_fullres``.
    architecture, config
        Key of ``agseg.models.registry`` and its keyword arguments.
    labels
        Label index to name.
    regions
        For networks with a head per region: the label that each head paints, in order; empty otherwise.
    channels
        Names of the input channels.
    transpose
        Which axis of the image as read (z, y, x) each tensor axis is.
    orientation
        What the reader turns scans to, or None: then the scans' stored orientation decides.
    input
        Fields of :class:`~agseg.weights.entry.InputSpec`, without the axes.
    """

    configuration: str
    architecture: str
    config: dict[str, Any]
    labels: dict[int, str]
    regions: tuple[int, ...]
    channels: tuple[str, ...]
    transpose: tuple[int, int, int]
    orientation: str | None
    input: dict[str, Any]

    def axis_codes(self, orientation: str) -> str:
        """Where the tensor axes grow to, for scans turned to ``orientation``; ``stored`` names the file's own axes I, J, K."""
        axes = "KJI" if orientation == "stored" else orientation[::-1]
        return "".join(axes[axis] for axis in self.transpose)


def read_plan(folder: Path, configuration: str, *, names: Mapping[str, str] | None = None) -> Plan:
    """Read what a configuration of a model folder says.

    Parameters
    ----------
    folder
        Holds ``plans.json`` and ``dataset.json``.
    configuration
        The one that the checkpoint was trained with.
    names
        Organ names by the data set's own names.

    Raises
    ------
    WeightsError
        If something is missing or not supported; the message names it.
    """
    plans, dataset = Facts.read(folder / "plans.json"), Facts.read(folder / "dataset.json")
    section = _resolved(plans, configuration)
    channels = _channels(dataset)
    if "previous_stage" in section or "cascade" in configuration:
        raise section.refuse(
            "previous_stage",
            "makes this a cascade: it needs the labels of its first stage",
            value=configuration,
            expected="a configuration of one stage",
            hint="Import the folder of 3d_fullres instead.",
        )
    if len(channels) != 1:
        raise dataset.refuse(
            "channel_names",
            f"asks for {len(channels)} channels: {', '.join(channels)}",
            expected="one channel",
            hint="Models of several registered series are not supported yet.",
        )
    manager = plans.take("label_manager", str, "LabelManager")
    if manager != "LabelManager":
        raise plans.refuse("label_manager", "is not supported", value=manager, expected="LabelManager")
    labels, regions = _labels(dataset, names or {})
    heads = len(regions) or max(labels) + 1
    architecture, config = network_config(section, classes=heads)
    reader = plans.take("image_reader_writer", str, "SimpleITKIO")
    if reader not in _READERS:
        raise plans.refuse("image_reader_writer", "is not supported", value=reader, expected=" or ".join(_READERS))
    transpose = plans.numbers("transpose_forward", int, count=3)
    if sorted(transpose) != [0, 1, 2]:
        raise plans.refuse("transpose_forward", "is no order of three axes", value=list(transpose))
    return Plan(
        configuration=configuration,
        architecture=architecture,
        config=config,
        labels=labels,
        regions=regions,
        channels=channels,
        transpose=(transpose[0], transpose[1], transpose[2]),
        orientation=_READERS[reader],
        input=_input(plans, section, channels[0], dims=config["dims"]),
    )


def _resolved(plans: Facts, name: str) -> Facts:
    """A configuration with what it inherits; the child's keys win."""
    all_of = plans.section("configurations")
    content: dict[str, Any] = {}
    visited: list[str] = []
    parent: str | None = name
    while parent is not None:
        if parent in visited:
            raise all_of.refuse(name, "inherits from itself", value=" -> ".join([*visited, parent]))
        visited.append(parent)
        section = all_of.section(parent)
        content = {**section.content, **content}
        parent = section.take("inherits_from", str, "") or None
    return Facts(content, path=plans.path, name=f"configurations.{name}")


def _channels(dataset: Facts) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in dataset else "modality"
    names = dataset.take(key, dict)
    return tuple(str(names[index]) for index in names)


def _labels(dataset: Facts, names: Mapping[str, str]) -> tuple[dict[int, str], tuple[int, ...]]:
    """Label index to organ name, and the label that each head paints where heads are regions."""
    listed = dataset.section("labels")
    if listed.content.get("background", 0) != 0:
        raise listed.refuse("background", "must be label 0", value=listed.content["background"])
    foreground = {name: value for name, value in listed.content.items() if name not in ("background", "ignore")}
    if any(isinstance(value, list) and len(value) > 1 for value in foreground.values()):
        order = dataset.numbers("regions_class_order", int, count=len(foreground))
        pairs = list(zip(order, foreground, strict=True))
    else:
        pairs = [(_index(listed, name), name) for name in foreground]
        order = ()
    labels = {index: names.get(name, organ_name(name)) for index, name in pairs}
    if len(labels) != len(pairs) or len(set(labels.values())) != len(pairs):
        raise listed.refuse("", "gives one number or name to two organs", value=pairs)
    if not labels or min(labels) < 1 or max(labels) > 255:
        raise listed.refuse("", "must number organs from 1 to 255", value=sorted(labels))
    if not order and sorted(labels) != list(range(1, len(labels) + 1)):
        raise listed.refuse("", "must number organs without gaps", value=sorted(labels))
    return dict(sorted(labels.items())), tuple(order)


def _index(listed: Facts, name: str) -> int:
    value = listed.content[name]
    return Facts({name: value[0] if isinstance(value, list) and value else value}, path=listed.path, name="labels").take(
        name, int
    )


def _input(plans: Facts, section: Facts, channel: str, *, dims: int) -> dict[str, Any]:
    schemes, masks = section.take("normalization_schemes", list), section.take("use_mask_for_norm", list, [False])
    key = (str(schemes[0]) if schemes else "", bool(masks and masks[0]))
    if key not in _SCHEMES:
        raise section.refuse(
            "normalization_schemes", "is not supported", value=key[0], expected=" or ".join(sorted({s for s, _ in _SCHEMES}))
        )
    normalisation = _SCHEMES[key]
    spacing, tile = section.numbers("spacing", float, count=dims), section.numbers("patch_size", int, count=dims)
    fields: dict[str, Any] = {
        "modality": "CT" if normalisation == "ct" or channel.strip().upper().startswith("CT") else "MR",
        # A 2D network sees slices at the spacing that they have.
        "spacing_mm": [0.0] * (3 - dims) + list(spacing),
        "tile": [1] * (3 - dims) + list(tile),
        "normalisation": normalisation,
        "normalise_first": True,
        "grid": "edges",
        "tiles": "spread",
        "crop_nonzero": True,
        "as_stored": True,
        **_resampling(section),
    }
    if normalisation == "ct":
        measured = "foreground_intensity_properties_per_channel"
        measured = measured if measured in plans else "foreground_intensity_properties_by_modality"
        numbers = plans.section(measured).section("0")
        fields["window_hu"] = [numbers.take("percentile_00_5", float), numbers.take("percentile_99_5", float)]
        fields["mean_std"] = [numbers.take("mean", float), numbers.take("std", float)]
    return fields


def _resampling(section: Facts) -> dict[str, Any]:
    """How images come to the model's spacing; scores must come back linearly, by the same rule for thick slices."""
    orders, separate = [], []
    for name in ("resampling_fn_data", "resampling_fn_probabilities"):
        function = section.take(name, str, _RESAMPLERS[0])
        if function not in _RESAMPLERS:
            raise section.refuse(name, "is not supported", value=function, expected=" or ".join(_RESAMPLERS))
        usual = {"order": 3 if name == "resampling_fn_data" else 1, "order_z": 0, "force_separate_z": None}
        said = section.take(f"{name}_kwargs", dict, usual)
        orders.append(1 if function == _RESAMPLERS[1] else said.get("order", 3))
        separate.append(said.get("force_separate_z", None if function == _RESAMPLERS[1] else False))
        if said.get("order_z", 0) != 0:
            raise section.refuse(f"{name}_kwargs", "interpolates between thick slices", value=said, expected="order_z 0")
    if orders[0] not in _ORDERS or orders[1] != 1:
        raise section.refuse(
            "resampling_fn_data_kwargs", "has an order that is not supported", value=orders, expected="3 and 1"
        )
    if separate[0] is not separate[1] or separate[0] not in (None, False):
        raise section.refuse(
            "resampling_fn_data_kwargs", "has force_separate_z that is not supported", value=separate, expected="null"
        )
    # The usual function writes what it interpolates into an array of its input's type, float16; the other gives float32.
    back = section.take("resampling_fn_probabilities", str, _RESAMPLERS[0])
    carry = "half_logits" if back == _RESAMPLERS[0] else "logits"
    return {"interpolation": _ORDERS[orders[0]], "separate_z": separate[0] is None, "carry": carry}
