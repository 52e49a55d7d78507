"""Patches of CT scans that are bent, swollen, recoloured and degraded, in place of the papers' affine draws.

The image is drawn in HU, because that is what scanners and contrast media change, and normalised last. A case without a scan
is drawn from its label map alone. Every patch is a pure function of seed and number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agseg.errors import FieldError
from agseg.inference.normalise import normalise
from agseg.training.augment import IntensityAugmentation, cut_field, degrade
from agseg.training.cases import Case
from agseg.training.drawing import draw_anatomy
from agseg.training.patches import Deformation, Swelling, patch_centre, sample_image, sample_labels, sampling_points, uniform
from agseg.training.sample import Sample, step_generator
from agseg.training.synthesis import PHASE_HU, SynthesisSettings, Tissue, recolour, structure_means
from agseg.weights.input_spec import GridRule, InputSpec, Normalisation

_VOXELWISE = (
    Normalisation.WINDOW_TO_UNIT,
    Normalisation.WINDOW_TO_SYMMETRIC,
    Normalisation.HU_OVER_1024,
    Normalisation.CT,
    Normalisation.NONE,
)
"""Rules that give a voxel the same value in a patch as in the whole scan."""


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn and changed.

    Parameters
    ----------
    shape
        Patch (voxels).
    organ_probability
        Part of the patches that are centred near an organ.
    swelling_chance
        Chance per organ that it is grown or shrunk in place.
    swelling
        Smallest and largest local magnification per class; classes that are not listed use the entry 0.
    """

    shape: tuple[int, int, int] = (112, 80, 80)
    organ_probability: float = 0.75
    swelling_chance: float = 0.3
    swelling: Mapping[int, tuple[float, float]] = field(default_factory=lambda: {0: (0.8, 1.25)})
    deformation: Deformation = field(default_factory=Deformation)
    intensity: IntensityAugmentation = field(default_factory=IntensityAugmentation)
    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)

    def __post_init__(self) -> None:
        if min(self.shape) < 2:
            raise FieldError("shape", "a patch has three sides of two voxels or more", value=list(self.shape))
        if 0 not in self.swelling:
            raise FieldError(
                "swelling", "needs an entry 0, for classes that have none of their own", value=sorted(self.swelling)
            )
        for name in ("organ_probability", "swelling_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldError(name, "a chance lies between 0 and 1", value=getattr(self, name))

    def check_input(self, spec: InputSpec) -> None:
        """See that patches can be drawn of what a network sees.

        Raises
        ------
        FieldError
            If it is not one channel of CT on a grid in mm, kept in HU until it is normalised voxel by voxel.
        """
        if spec.modality != "CT" or spec.channels or not all(spec.spacing_mm or (0,)) or spec.grid is not GridRule.FIRST_VOXEL:
            raise FieldError(
                "patches", "are drawn of scans in HU", expected="an input of CT, one channel, spacing_mm, grid first_voxel"
            )
        if spec.normalisation not in _VOXELWISE or spec.normalise_first:
            raise FieldError(
                "patches",
                "are normalised one by one, which must not need the whole scan",
                value=f"normalisation: {spec.normalisation}",
                expected=", ".join(_VOXELWISE),
            )


class PatchDraws(torch.utils.data.Dataset[Sample]):
    """Patches by number: each draws a case by its weight, a patch of it, its bend and its look.

    Parameters
    ----------
    cases
        At least one, in HU on the model grid.
    spec
        How the patch is normalised, voxel by voxel: a rule that needs the whole scan does not fit.
    tissues
        What the structure indices of the cases are; cases without a structure map are never recoloured.
    """

    def __init__(
        self, cases: Sequence[Case], settings: PatchSettings, spec: InputSpec, *, seed: int, tissues: Mapping[int, Tissue]
    ) -> None:
        if not cases:
            raise ValueError("nothing to draw from")
        self.cases, self.settings, self.spec, self.seed, self.tissues = tuple(cases), settings, spec, seed, dict(tissues)
        self._weights = torch.tensor([case.weight for case in cases], dtype=torch.float64)
        self._means = [None if c.structures is None else structure_means(c.image, c.structures) for c in cases]

    def __getitem__(self, number: int) -> Sample:
        generator = step_generator(self.seed, number)
        chosen = int(torch.multinomial(self._weights, 1, generator=generator))
        case, means, settings = self.cases[chosen], self._means[chosen], self.settings
        centre = patch_centre(case, shape=settings.shape, organ_probability=settings.organ_probability, generator=generator)
        points = sampling_points(
            centre,
            shape=settings.shape,
            deformation=settings.deformation,
            generator=generator,
            swellings=self._swellings(case, generator),
        )
        labels = sample_labels(case.labels, points)
        image = self._look(case, points, means, generator)
        image = degrade(image, settings.intensity, generator)
        image, labels = cut_field(image, labels, chance=settings.intensity.cut_chance, generator=generator)
        return Sample(normalise(image.clone(), self.spec)[None], labels, case.known, case.id)

    def _look(self, case: Case, points: Tensor, means: Tensor | None, generator: torch.Generator) -> Tensor:
        """The scan at ``points``, as it is or in another contrast; or an image drawn from its structures alone."""
        chances = self.settings.synthesis
        if case.structures is None or means is None:
            return sample_image(case.image, points)
        structures = sample_labels(case.structures, points)
        if case.drawn:
            return draw_anatomy(
                structures,
                tissues=self.tissues,
                contrast=PHASE_HU,
                random_chance=chances.random_chance,
                lesion_chance=chances.lesion_chance,
                generator=generator,
            )
        image = sample_image(case.image, points)
        return recolour(image, structures, means=means, tissues=self.tissues, settings=chances, generator=generator)

    def _swellings(self, case: Case, generator: torch.Generator) -> list[Swelling]:
        found = []
        for label in case.present_classes():
            if uniform(0, 1, generator) >= self.settings.swelling_chance:
                continue
            voxels = case.voxels_of(label).float()
            low, high = self.settings.swelling.get(label, self.settings.swelling[0])
            x, y, z = (float(v) for v in voxels.mean(0))
            reach = 1.2 * float(voxels.std(0, correction=0).norm()) + 3.0
            found.append(Swelling((x, y, z), reach, uniform(low, high, generator)))
        return found
