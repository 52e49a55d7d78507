"""The network of a plan as plain numbers, from an allow-list of the names that plans hold."""

from __future__ import annotations

from typing import Any

from agseg.weights.nnunet.facts import Facts

_PLAIN = ("nnunet-plain", "n_conv_per_stage")
_RESENC = ("nnunet-resenc", "n_blocks_per_stage")
_ROOM = "dynamic_network_architectures.architectures"

_NETWORKS = {
    f"{_ROOM}.unet.PlainConvUNet": _PLAIN,
    f"{_ROOM}.unet.ResidualEncoderUNet": _RESENC,
    f"{_ROOM}.residual_unet.ResidualEncoderUNet": _RESENC,
}
"""Class in a plan to agseg's family, and the key that counts its encoder's parts."""

_OLD_NETWORKS = {"PlainConvUNet": _PLAIN, "ResidualEncoderUNet": _RESENC}
_CONVOLUTIONS = {f"torch.nn.{room}Conv{dims}d": dims for dims in (2, 3) for room in ("", "modules.conv.")}
_NORMS = {
    f"torch.nn.{room}{name}{dims}d": kind
    for kind, name, rooms in (
        ("instance", "InstanceNorm", ("", "modules.instancenorm.")),
        ("batch", "BatchNorm", ("", "modules.batchnorm.")),
    )
    for dims in (2, 3)
    for room in rooms
}
_ACTIVATIONS = {
    f"torch.nn.{room}{name}": slope
    for name, slope in (("LeakyReLU", 0.01), ("ReLU", 0.0))
    for room in ("", "modules.activation.")
}
_DROPOUTS = {f"torch.nn.{room}Dropout{dims}" for dims in ("", "2d", "3d") for room in ("", "modules.dropout.")}
"""Dropout does nothing once a network is trained."""

_KNOWN = frozenset(
    ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage",
     "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin",
     "nonlin_kwargs", "nonlin_first", "stem_channels", "deep_supervision")
)  # fmt: skip


def network_config(section: Facts, *, classes: int) -> tuple[str, dict[str, Any]]:
    """The family and the keyword arguments of a configuration's network.

    Raises
    ------
    WeightsError
        If the plan names something that is not on the lists.
    """
    if "architecture" not in section:
        return _of_old_plan(section, classes=classes)
    described = section.section("architecture")
    name = described.take("network_class_name", str)
    if name not in _NETWORKS:
        raise described.refuse("network_class_name", "is not supported", value=name, expected=" or ".join(_NETWORKS))
    family, parts = _NETWORKS[name]
    given = described.section("arch_kwargs")
    if strangers := sorted(set(given.content) - _KNOWN):
        raise given.refuse(strangers[0], "is not supported", value=given.content[strangers[0]])
    stages = given.take("n_stages", int)
    norm = given.take("norm_op", str, "none")
    settings = given.section("norm_op_kwargs") if "norm_op_kwargs" in given else Facts({}, path=given.path)
    config: dict[str, Any] = {
        "dims": _listed(given, "conv_op", _CONVOLUTIONS),
        "classes": classes,
        "features_per_stage": _per_stage(given, "features_per_stage", stages),
        "kernel_sizes": _per_stage(given, "kernel_sizes", stages),
        "strides": _per_stage(given, "strides", stages),
        parts: _per_stage(given, parts, stages),
        "n_conv_per_stage_decoder": _per_stage(given, "n_conv_per_stage_decoder", stages - 1),
        "conv_bias": given.take("conv_bias", bool, False),
        "norm": norm if norm == "none" else _listed(given, "norm_op", _NORMS),
        "norm_eps": settings.take("eps", float, 1e-5),
        # torch's own default: an instance norm has no scale, a batch norm has one.
        "norm_affine": settings.take("affine", bool, "BatchNorm" in norm),
        "slope": _slope(given),
    }
    if "dropout_op" in given and given.take("dropout_op", str) not in _DROPOUTS:
        raise given.refuse("dropout_op", "is not supported", value=given.take("dropout_op", str))
    if given.take("nonlin_first", bool, False):
        config["nonlin_first"] = True
    if "stem_channels" in given:
        config["stem_channels"] = given.take("stem_channels", int)
    return family, config


def _of_old_plan(section: Facts, *, classes: int) -> tuple[str, dict[str, Any]]:
    """Plans of nnU-Net 2.0 to 2.2 describe a network by the numbers of their planner."""
    name = section.take("UNet_class_name", str)
    if name not in _OLD_NETWORKS:
        raise section.refuse("UNet_class_name", "is not supported", value=name, expected=" or ".join(_OLD_NETWORKS))
    family, parts = _OLD_NETWORKS[name]
    counts = section.numbers("n_conv_per_stage_encoder", int)
    base, limit = section.take("UNet_base_num_features", int), section.take("unet_max_num_features", int)
    return family, {
        "dims": len(section.take("patch_size", list)),
        "classes": classes,
        "features_per_stage": [min(base * 2**stage, limit) for stage in range(len(counts))],
        "kernel_sizes": _per_stage(section, "conv_kernel_sizes", len(counts)),
        "strides": _per_stage(section, "pool_op_kernel_sizes", len(counts)),
        parts: list(counts),
        "n_conv_per_stage_decoder": _per_stage(section, "n_conv_per_stage_decoder", len(counts) - 1),
        "conv_bias": True,
        "norm": "instance",
        "norm_eps": 1e-5,
        "norm_affine": True,
        "slope": 0.01,
    }


def _listed(given: Facts, key: str, known: dict[str, Any]) -> Any:
    name = given.take(key, str)
    if name not in known:
        raise given.refuse(key, "is not supported", value=name, expected=" or ".join(known))
    return known[name]


def _slope(given: Facts) -> float:
    slope: float = _listed(given, "nonlin", _ACTIVATIONS)
    settings = given.section("nonlin_kwargs") if "nonlin_kwargs" in given else Facts({}, path=given.path)
    return settings.take("negative_slope", float, slope) if slope else 0.0


def _per_stage(given: Facts, key: str, stages: int) -> list[Any]:
    """One item per stage, each a number or a list of numbers; one number stands for all stages."""
    value = given.content.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return [value] * stages
    listed = given.take(key, list)
    plain = all(_is_count(item) or (isinstance(item, list) and item and all(map(_is_count, item))) for item in listed)
    if len(listed) != stages or not plain:
        raise given.refuse(key, "does not fit", value=listed, expected=f"positive whole numbers for {stages} stages")
    return listed


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16
