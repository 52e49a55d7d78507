"""The configurations that the papers published, as data. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Where the numbers or topologies are published.
AGN_TABLE_1 = "Attention Gated Networks (2019), Table 1"
AGN_TABLE_2 = "Attention Gated Networks (2019), Table 2"
AGN_TABLE_5 = "Attention Gated Networks (2019), Table 5"
PREPRINT_TABLE_5 = "Attention Gated Networks, preprint (2018), Table 5"
ANU_TABLE_6 = "ANU-Net (2020), Table 6"
SLIDES = "the slides on Attention U-Net (2025), dual attention and its gate"
FOCUSNET_TABLE_1 = "Alom et al., R2U-Net (2018), a baseline of FocusNet (2019), Table 1"
R2UNET = "Alom et al., R2U-Net (2018), a baseline of ANU-Net (2020), Tables 2 to 5"


@dataclass(frozen=True)
class Published:
    """A network at the configuration of a paper.

    Parameters
    ----------
    family, config
        Key of :data:`agseg.models.catalogue.FAMILIES` and its keyword arguments.
    input_shape
        The paper's input, ``(batch, channels, *grid)``.
    published_m
        Parameters in millions as printed, None where nothing is published.
    decimals
        Digits after the point in print.
    truncated
        Whether the paper's table truncates instead of rounding.
    source
        Where the number, or else the topology, is published.
    """

    family: str
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    source: str
    published_m: float | None = None
    decimals: int = 2
    truncated: bool = False
    dims: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", len(self.input_shape) - 2)


CT_TILE = (1, 1, 160, 160, 96)
"""Input of the pancreas networks: voxels of 2 mm."""

FETAL_FRAME = (1, 1, 208, 272)
"""Input of Sononet and AG-Sononet: the centre crop of a frame."""

ABDOMEN_SLICE = (1, 1, 256, 256)
"""Input of ANU-Net and its baselines."""

PUBLISHED: dict[str, Published] = {
    "unet3d": Published("unet", {}, CT_TILE, AGN_TABLE_1, 5.88, truncated=True),
    "attention-unet3d": Published("attention-unet", {}, CT_TILE, AGN_TABLE_1, 6.40, truncated=True),
    "attention-unet3d-proj": Published("attention-unet", {"gating": "proj"}, CT_TILE, AGN_TABLE_1, 6.40, truncated=True),
    "attention-unet3d-concat": Published("attention-unet", {"gate_kind": "concatenating"}, CT_TILE, SLIDES),
    "attention-unet3d-dual": Published("attention-unet", {"gate_kind": "dual"}, CT_TILE, SLIDES),
    "unet3d-6.44m": Published("unet", {"widths": [16, 33, 67, 134, 268]}, CT_TILE, AGN_TABLE_2, 6.44, truncated=True),
    "unet3d-10.40m": Published("unet", {"widths": [21, 42, 85, 170, 341]}, CT_TILE, AGN_TABLE_2, 10.40, truncated=True),
    "sononet-8": Published("sononet", {"base": 8}, FETAL_FRAME, AGN_TABLE_5, 0.16),
    "sononet-16": Published("sononet", {"base": 16}, FETAL_FRAME, AGN_TABLE_5, 0.65),
    "sononet-32": Published("sononet", {"base": 32}, FETAL_FRAME, AGN_TABLE_5, 2.58),
    "ag-sononet-8": Published("ag-sononet", {"base": 8, "mode": "mean"}, FETAL_FRAME, PREPRINT_TABLE_5, 0.18),
    "ag-sononet-16": Published("ag-sononet", {"base": 16, "mode": "mean"}, FETAL_FRAME, PREPRINT_TABLE_5, 0.70),
    "ag-sononet-32": Published("ag-sononet", {"base": 32, "mode": "mean"}, FETAL_FRAME, PREPRINT_TABLE_5, 2.79),
    "ag-sononet-ds-8": Published("ag-sononet", {"base": 8, "mode": "deep_sup"}, FETAL_FRAME, PREPRINT_TABLE_5, 0.18),
    "ag-sononet-ds-16": Published("ag-sononet", {"base": 16, "mode": "deep_sup"}, FETAL_FRAME, PREPRINT_TABLE_5, 0.71),
    "ag-sononet-ds-32": Published("ag-sononet", {"base": 32, "mode": "deep_sup"}, FETAL_FRAME, PREPRINT_TABLE_5, 2.80),
    "ag-sononet-ft-8": Published("ag-sononet", {"base": 8, "mode": "ft_concat"}, FETAL_FRAME, AGN_TABLE_5, 0.18),
    "ag-sononet-ft-16": Published("ag-sononet", {"base": 16, "mode": "ft_concat"}, FETAL_FRAME, AGN_TABLE_5, 0.70),
    "ag-sononet-ft-32": Published("ag-sononet", {"base": 32, "mode": "ft_concat"}, FETAL_FRAME, AGN_TABLE_5, 2.79),
    "sononet16-original": Published("sononet-original", {"base": 16}, (1, 1, 224, 288), "Baumgartner et al., SonoNet (2017)"),
    "anu-net-l1": Published("anu-net", {"depth": 1}, ABDOMEN_SLICE, ANU_TABLE_6, 0.1038, decimals=4),
    "anu-net-l2": Published("anu-net", {"depth": 2}, ABDOMEN_SLICE, ANU_TABLE_6, 0.5134, decimals=4),
    "anu-net-l3": Published("anu-net", {"depth": 3}, ABDOMEN_SLICE, ANU_TABLE_6, 2.1918, decimals=4),
    "anu-net-l4": Published("anu-net", {"depth": 4}, ABDOMEN_SLICE, ANU_TABLE_6, 8.9506, decimals=4),
    "unetpp": Published("unetpp", {}, ABDOMEN_SLICE, "Zhou et al., UNet++ (2018), public code", 9.04),
    "r2unet": Published("r2unet", {}, ABDOMEN_SLICE, R2UNET),
    "attention-r2unet": Published("r2unet", {"gated": True}, ABDOMEN_SLICE, R2UNET),
    "res-unet": Published("r2unet", {"steps": 0}, ABDOMEN_SLICE, FOCUSNET_TABLE_1),
    "ru-net": Published("r2unet", {"residual": False}, ABDOMEN_SLICE, FOCUSNET_TABLE_1),
    "focusnet": Published("focusnet", {}, (1, 3, 256, 256), "Kaul et al., FocusNet (2019), section 2"),
    "focusnet-released": Published("focusnet-released", {}, (1, 3, 256, 256), "FocusNet, the authors' code of September 2019"),
    "obelisk-hybrid": Published("obelisk-hybrid", {}, (1, 1, 144, 144, 144), "Heinrich et al., OBELISK-Net (2019)"),
}
"""Published configuration by its name in ``agseg models``."""
