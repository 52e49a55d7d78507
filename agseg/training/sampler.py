"""Training samples as a pure function of seed and step, so that a resumed run sees exactly what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agseg.training.augment import IntensityAugmentation, cut_field, degrade
from agseg.training.cases import Case
from agseg.training.drawing import draw_anatomy
from agseg.training.patches import Deformation, Swelling, patch_centre, sample_image, sample_labels, sampling_points, uniform
from agseg.training.synthesis import PHASE_HU, SynthesisSettings, Tissue, recolour, structure_means

__all__ = ["PatchSampler", "PatchSettings", "Sample", "step_generator"]

_STEP_PRIME = 1_000_003
"""Keeps the generators of neighbouring seeds and steps apart."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One patch: image float32 ``[1, x, y, z]`` in HU, labels uint8 ``[x, y, z]``, and the classes its labels tell apart."""

    image: Tensor
    labels: Tensor
    known: tuple[int, ...] | None
    case_id: str


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


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    return torch.Generator().manual_seed(seed * _STEP_PRIME + step)


class PatchSampler(torch.utils.data.Dataset[Sample]):
    """Indexable by step: ``sampler[step]`` draws a case by weight, a patch of it, its bend and its look.

    Parameters
    ----------
    cases
        At least one.
    tissues
        What the structure indices of the cases are; cases without a structure map are never recoloured.
    """

    def __init__(self, cases: Sequence[Case], settings: PatchSettings, *, seed: int, tissues: Mapping[int, Tissue]) -> None:
        if not cases:
            raise ValueError("a sampler needs at least one case")
        self.cases, self.settings, self.seed, self.tissues = tuple(cases), settings, seed, dict(tissues)
        self._weights = torch.tensor([case.weight for case in cases], dtype=torch.float64)
        self._means = [None if c.structures is None else structure_means(c.image, c.structures) for c in cases]

    def __getitem__(self, step: int) -> Sample:
        generator = step_generator(self.seed, step)
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
        return Sample(image[None], labels, case.known, case.id)

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
            if label not in self.settings.swelling and label > max(self.settings.swelling):
                continue
            if uniform(0, 1, generator) >= self.settings.swelling_chance:
                continue
            voxels = case.voxels_of(label).float()
            low, high = self.settings.swelling.get(label, self.settings.swelling[0])
            x, y, z = (float(v) for v in voxels.mean(0))
            reach = 1.2 * float(voxels.std(0, correction=0).norm()) + 3.0
            found.append(Swelling((x, y, z), reach, uniform(low, high, generator)))
        return found
