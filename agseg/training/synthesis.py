"""New images from labelled scans: the same anatomy in another contrast phase, another patient, or no patient at all.

Every structure of an anatomical label map gets the intensity ``k * (HU - mean of the structure in this scan) + new mean``.
With k near 1 and a new mean from a table of contrast phases, a non-contrast scan turns into a plausible contrast scan that
keeps its own texture; with k near 0 it becomes a drawing of the label map; with k = 1 and the old mean it stays what it is.
Networks trained on such mixtures learn shape and place instead of grey values.

Source: contrast randomisation as in Billot et al., SynthSeg (2023); the phase table is our own summary of textbook values,
widened for liver, spleen, pancreas and kidneys to what the open scans measure (docs/weights-log.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.patches import uniform


class Phase(StrEnum):
    """When after the injection of contrast medium a scan was taken."""

    PLAIN = "plain"
    ARTERIAL = "arterial"
    VENOUS = "venous"
    DELAYED = "delayed"


class Tissue(StrEnum):
    """What structures look like on CT; several structures share one."""

    LIVER = "liver"
    SPLEEN = "spleen"
    PANCREAS = "pancreas"
    KIDNEY = "kidney"
    ARTERY = "artery"
    VEIN = "vein"
    PORTAL = "portal"
    HEART = "heart"
    GUT = "gut"
    FLUID = "fluid"
    MUSCLE = "muscle"
    GLAND = "gland"
    NERVE = "nerve"
    BONE = "bone"
    LUNG = "lung"
    SOFT = "soft"
    FAT = "fat"
    AIR = "air"


ContrastTable = Mapping[Tissue, Mapping[Phase, tuple[float, float]]]
"""Range of the mean HU of a tissue per phase."""

PHASE_HU: ContrastTable = {
    tissue: dict(zip(Phase, ranges, strict=True))
    for tissue, ranges in {
        Tissue.LIVER: ((38, 70), (50, 105), (75, 135), (75, 105)),
        Tissue.SPLEEN: ((40, 55), (75, 180), (95, 165), (80, 130)),
        Tissue.PANCREAS: ((25, 48), (70, 150), (65, 120), (55, 90)),
        Tissue.KIDNEY: ((25, 38), (85, 200), (110, 220), (120, 200)),
        Tissue.ARTERY: ((32, 50), (230, 400), (120, 180), (90, 130)),
        Tissue.VEIN: ((32, 50), (45, 120), (110, 175), (90, 130)),
        Tissue.PORTAL: ((32, 50), (70, 150), (130, 200), (95, 130)),
        Tissue.HEART: ((32, 50), (120, 300), (100, 160), (80, 120)),
        Tissue.GUT: ((10, 50), (20, 90), (20, 100), (20, 90)),
        Tissue.FLUID: ((0, 18), (0, 18), (0, 20), (0, 30)),
        Tissue.MUSCLE: ((42, 62), (48, 68), (52, 75), (52, 72)),
        Tissue.GLAND: ((15, 45), (40, 90), (50, 90), (40, 75)),
        Tissue.NERVE: ((20, 45), (20, 45), (20, 45), (20, 45)),
        Tissue.SOFT: ((25, 50), (30, 80), (35, 95), (35, 80)),
        Tissue.FAT: ((-118, -88), (-118, -88), (-115, -85), (-115, -85)),
    }.items()
}
"""Range of the mean HU of a tissue per phase; tissues that are not listed (bone, lung, air) keep their own mean."""

RANDOM_HU = (-60.0, 230.0)
"""Range of mean HU when intensities are drawn without regard to anatomy."""

DENSE_HU = -15.0
"""Voxels above this (HU) are solid tissue when a structure's own mean is taken."""

FAT_TO_TISSUE_HU = (-80.0, 10.0)
"""From pure fat to pure tissue: between them a voxel is a mixture, and only its tissue part is recoloured."""

CORTEX_HU = (0.0, 90.0)
"""How much brighter the kidney's cortex is in the arterial and venous phases (HU)."""

_PHASE_CHANCE = {Phase.PLAIN: 0.3, Phase.ARTERIAL: 0.2, Phase.VENOUS: 0.4, Phase.DELAYED: 0.1}


@dataclass(frozen=True)
class SynthesisSettings:
    """How often a patch keeps its own contrast, gets another phase with its own texture, or is drawn from its labels.

    The three chances add up to 1. ``random_chance`` is the part of drawn patches whose intensities ignore anatomy.
    """

    keep_chance: float = 0.3
    recolour_chance: float = 0.4
    draw_chance: float = 0.3
    random_chance: float = 0.25
    lesion_chance: float = 0.25
    oral_contrast_chance: float = 0.12

    def __post_init__(self) -> None:
        if abs(self.keep_chance + self.recolour_chance + self.draw_chance - 1.0) > 1e-6:
            raise ValueError("the chances to keep, recolour and draw must add up to 1")


@dataclass(frozen=True, eq=False)
class Recolouring:
    """One draw: per structure (index 0 to 255) the factor on its texture and the shift, both float32 of length 256."""

    factor: Tensor
    shift: Tensor
    phase: Phase | None


def structure_means(image: Tensor, structures: Tensor) -> Tensor:
    """Mean HU of each structure in a scan, float32 of length 256; 0 where a structure does not occur.

    Voxels of fat and gas inside a structure's label (a kidney's sinus, a fatty pancreas, the gut's contents) are left out
    where the structure has denser voxels too.
    """
    index, values = structures.flatten().long(), image.flatten().float()
    dense = values > DENSE_HU
    everything = torch.zeros(256).scatter_add_(0, index, values) / torch.bincount(index, minlength=256).clamp_min(1)
    count = torch.bincount(index[dense], minlength=256)
    solid = torch.zeros(256).scatter_add_(0, index[dense], values[dense]) / count.clamp_min(1)
    return torch.where(count > 0, solid, everything)


def recolour(
    image: Tensor,
    structures: Tensor,
    *,
    means: Tensor,
    tissues: Mapping[int, Tissue],
    settings: SynthesisSettings,
    generator: torch.Generator,
) -> Tensor:
    """A patch (x, y, z; HU) in a randomly drawn look.

    Parameters
    ----------
    structures
        uint8 map of the patch.
    means
        :func:`structure_means` of the whole scan.
    tissues
        What each structure index is; a structure that is not listed keeps its look.
    """
    draw = uniform(0, 1, generator)
    if draw < settings.keep_chance:
        return image
    textured = draw < settings.keep_chance + settings.recolour_chance
    plan = _draw_recolouring(means, tissues, settings, generator, textured=textured)
    index = structures.long()
    factor, shift = plan.factor[index], plan.shift[index]
    # Seams between structures lie in partial volume; without softening every organ would wear an outline.
    factor, shift = _soften(torch.stack([factor, shift]))
    new: Tensor = image * factor + shift
    if textured:
        low, high = FAT_TO_TISSUE_HU
        tissue = ((image - low) / (high - low)).clamp(0.0, 1.0).maximum(mask_of(structures, tissues, (Tissue.FAT,)))
        new = torch.lerp(image, new, tissue)
    if plan.phase in (Phase.ARTERIAL, Phase.VENOUS):
        new = brighten_cortex(new, structures, tissues, generator)
    if not textured:
        new = new + _texture(image.shape, generator) * (factor < 0.7)
    if uniform(0, 1, generator) < settings.lesion_chance:
        new = add_lesion(new, structures, tissues, generator)
    if uniform(0, 1, generator) < settings.oral_contrast_chance:
        new = new + uniform(50, 250, generator) * mask_of(structures, tissues, (Tissue.GUT,)) * (image > -50)
    return new


def _draw_recolouring(
    means: Tensor, tissues: Mapping[int, Tissue], settings: SynthesisSettings, generator: torch.Generator, *, textured: bool
) -> Recolouring:
    phase = draw_phase(generator)
    random = not textured and uniform(0, 1, generator) < settings.random_chance
    texture = uniform(0.7, 1.2, generator) if textured else uniform(0.0, 0.35, generator)
    ranks = {tissue: uniform(-0.1, 1.1, generator) for tissue in Tissue}
    factor, shift = torch.ones(256), torch.zeros(256)
    for structure, tissue in tissues.items():
        if tissue not in PHASE_HU:
            continue
        low, high = PHASE_HU[tissue][phase]
        if random and tissue is not Tissue.FAT:
            low, high = RANDOM_HU
        own = uniform(-8, 8, generator) if not random else 0.0
        mean = low + (high - low) * ranks[tissue] + own
        # Gut keeps its gas and its contents, fat its strands: only their level moves.
        kept = 1.0 if tissue in (Tissue.GUT, Tissue.FAT, Tissue.SOFT) and textured else texture
        if tissue in (Tissue.GUT, Tissue.SOFT):
            kept = max(kept, 0.6)
        factor[structure] = kept
        shift[structure] = mean - kept * means[structure]
    return Recolouring(factor, shift, None if random else phase)


def draw_phase(generator: torch.Generator) -> Phase:
    """A contrast phase by its chance."""
    phases = list(_PHASE_CHANCE)
    weights = torch.tensor([_PHASE_CHANCE[phase] for phase in phases])
    return phases[int(torch.multinomial(weights, 1, generator=generator))]


def _soften(maps: Tensor) -> Tensor:
    """A 3x3x3 mean of ``[n, x, y, z]``."""
    softened: Tensor = F.avg_pool3d(maps[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return softened


def mask_of(structures: Tensor, tissues: Mapping[int, Tissue], wanted: Sequence[Tissue]) -> Tensor:
    """Where structures of these tissues are (float32)."""
    table = torch.zeros(256)
    for structure, tissue in tissues.items():
        if tissue in wanted:
            table[structure] = 1.0
    found: Tensor = table[structures.long()]
    return found


def brighten_cortex(image: Tensor, structures: Tensor, tissues: Mapping[int, Tissue], generator: torch.Generator) -> Tensor:
    """Kidneys with a bright cortex and a darker medulla."""
    kidney = mask_of(structures, tissues, (Tissue.KIDNEY,))
    depth = F.avg_pool3d(kidney[None, None], 5, stride=1, padding=2)[0, 0]
    return image + uniform(*CORTEX_HU, generator) * kidney * (1.0 - depth) * 2.0 - uniform(0, 30, generator) * kidney * depth


def _texture(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Smooth random structure of a few voxels' size, up to about 12 HU."""
    coarse = [max(2, n // 3) for n in shape]
    noise = torch.randn((1, 1, *coarse), generator=generator)
    return F.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=False)[0, 0] * uniform(3, 18, generator)


def add_lesion(image: Tensor, structures: Tensor, tissues: Mapping[int, Tissue], generator: torch.Generator) -> Tensor:
    """A round cyst or tumour inside a solid organ: the organ's label stays."""
    organ = mask_of(structures, tissues, (Tissue.LIVER, Tissue.KIDNEY, Tissue.SPLEEN, Tissue.PANCREAS))
    places = organ.nonzero()[::5]
    if len(places) == 0:
        return image
    centre = places[int(torch.randint(len(places), (), generator=generator))].float()
    radius = uniform(1.5, 7.0, generator)
    axes = [(torch.arange(n) - centre[a]).square() for a, n in enumerate(image.shape)]
    distance = (axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]).sqrt()
    inside = torch.sigmoid((radius - distance) * 2.0) * organ
    return image + inside * (uniform(-10, 60, generator) - image) * uniform(0.5, 1.0, generator)
