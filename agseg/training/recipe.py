"""A recipe: everything that one training run is, but for the data's place on disk.

Those of the papers' experiments are in ``train/recipes``, those of the packaged networks in ``train/packaged``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import yaml

from agseg.binding import load
from agseg.errors import FieldError, RecipeError
from agseg.io.resources import resource_path
from agseg.labels import LabelSet
from agseg.models.catalogue import facts
from agseg.training.augment_nnunet import Augmentation
from agseg.training.datasets import dataset_names
from agseg.training.draws import Affine, Balance, ChannelShift
from agseg.training.listing import OpenCase, Structure, check_list
from agseg.training.negatives import Scene
from agseg.training.patch_draws import PatchSettings
from agseg.training.protocol import OWN
from agseg.training.settings import LoopSettings
from agseg.weights.input_spec import InputSpec


class LossName(StrEnum):
    """The losses of :mod:`agseg.training.losses`."""

    SOFT_DICE = "soft-dice"
    DICE_BCE = "dice-bce"
    DICE_CROSS_ENTROPY = "dice-cross-entropy"
    HYBRID = "hybrid"
    FOCUSNET_DICE = "focusnet-dice"
    PARTIAL = "partial-dice-cross-entropy"
    """For scans of which only some organs are labelled (:mod:`agseg.training.partial_loss`)."""
    PLANES = "planes"
    REGIONS = "regions"
    """Dice plus binary cross-entropy of every region (:mod:`agseg.training.masked_losses`)."""


@dataclass(frozen=True)
class NetworkChoice:
    """A name of :mod:`agseg.models.registry` and the keyword arguments that override its published ones."""

    architecture: str
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StartFrom:
    """Another recipe's result whose parts this network starts from.

    Parameters
    ----------
    recipe
        Name of the recipe.
    parts
        Prefixes of the tensors that are taken over; each must find at least one of the same shape. Empty: all, which must fit.
    """

    recipe: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Parameters
    ----------
    name, title, source
        File name without suffix; for people; which experiment of which paper.
    dataset, split
        What it learns from, and which named split of it; only names where the recipe lists ``cases`` of its own.
    network
        See :class:`NetworkChoice`.
    labels
        Class index to organ, from 1: which of the data set's labels the network learns, under which index. Empty for frames.
    input
        What the network sees; it travels with the weights. A tile of depth 1 means slices or pictures.
    loss
        See :class:`LossName`.
    batch
        Samples per batch.
    loop
        See :class:`~agseg.training.settings.LoopSettings`.
    affine, organ_share, balance, channel_shift
        How samples are drawn, see :mod:`agseg.training.draws`.
    augment
        See :class:`~agseg.training.augment_nnunet.Augmentation`; none by default, as in the papers.
    patches
        Draws bent, recoloured and degraded patches of CT instead (:mod:`agseg.training.patch_draws`); None draws as the papers.
    structures
        For ``patches``: what the numbers of the label maps look like on CT, so that scans can be recoloured. In a cohort these
        are the values of its label images, whose names tell the class.
    cases
        Scans to learn from that lie in no cohort. The data folder then holds the files that they name.
    left_out, negatives
        Beside ``cases``: scans of patients that no case shows, and the paths of scans without any organ, by name. The network
        is measured on them (``make weights-eval``).
    scenes, scenes_each
        For ``patches``: made-up scans without organs, the weight of each kind, and how many there are of a kind.
    phantoms, phantoms_each
        Beside ``cases``: synthetic patients (``agseg phantom``), the weight of each site, and how many there are of a site.
    wins_from
        The probability from which a class beats the background, where that is not 0.5: it goes into the bias of the last
        layer of the finished network.
    stop_after
        Step at which the schedule of ``loop`` is left.
    protocol
        Of the papers: ``scr`` unless the run is a fine-tuning. ``own`` for data of one's own, where no protocol applies.
    start
        A stage that comes before, if any.
    published
        Key of this experiment's row in ``train/published.yaml``, if there is one.
    minutes_on_gpu
        Estimate of the whole run on one current GPU; nobody has measured it unless docs/reproduce.md says so.
    """

    name: str
    title: str
    source: str
    dataset: str
    split: str
    network: NetworkChoice
    input: InputSpec
    loss: LossName
    batch: int
    loop: LoopSettings
    labels: dict[int, str] = field(default_factory=dict)
    affine: Affine = field(default_factory=Affine)
    organ_share: float = 0.0
    balance: Balance = Balance.UNIFORM
    channel_shift: ChannelShift = field(default_factory=ChannelShift)
    augment: Augmentation = field(default_factory=Augmentation)
    protocol: str = "scr"
    start: StartFrom | None = None
    published: str | None = None
    minutes_on_gpu: float | None = None
    patches: PatchSettings | None = None
    structures: dict[int, Structure] = field(default_factory=dict)
    cases: tuple[OpenCase, ...] = ()
    left_out: tuple[OpenCase, ...] = ()
    negatives: dict[str, str] = field(default_factory=dict)
    scenes: dict[Scene, float] = field(default_factory=dict)
    scenes_each: int = 3
    phantoms: dict[str, float] = field(default_factory=dict)
    phantoms_each: int = 6
    wins_from: dict[int, float] = field(default_factory=dict)
    stop_after: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise FieldError("batch", "a batch holds at least one sample", value=self.batch)
        if sorted(self.labels) != list(range(1, len(self.labels) + 1)):
            raise FieldError("labels", "labels are numbered from 1 without a gap", value=sorted(self.labels))
        LabelSet.from_mapping(self.labels)  # refuses what cannot be in a mask
        if self.protocol == OWN.name and self.published is not None:
            raise FieldError("published", "nobody has published figures of data of one's own", value=self.published)
        for label, probability in self.wins_from.items():
            if label not in self.labels or not 0 < probability < 1:
                raise FieldError(
                    "wins_from", "needs a label and a probability", value={label: probability}, expected="0 < p < 1"
                )
        if self.stop_after is not None and self.stop_after < 1:
            raise FieldError("stop_after", "a run takes at least one step", value=self.stop_after)
        self._check_network()
        self._check_patches()

    def _check_patches(self) -> None:
        """See that what belongs to patches, and to a list of cases, is there with them only, and holds together."""
        for there, names in _BELONGS_TO.items():
            for name in names:
                if getattr(self, name) and not getattr(self, there):
                    raise FieldError(name, f"has no meaning without {there}")
        if self.patches is None:
            return
        self.patches.check_input(self.input)
        if not facts(self.network.architecture, self.network.config).takes(self.patches.shape):
            raise FieldError("patches", "do not go through the network", value=f"shape: {list(self.patches.shape)}")
        if self.affine != Affine() or self.organ_share or self.augment != Augmentation():
            raise FieldError("patches", "have settings of their own for it", expected="no affine, organ_share or augment")
        if min(self.scenes_each, self.phantoms_each) < 1 or min((*self.scenes.values(), *self.phantoms.values(), 1)) <= 0:
            raise FieldError("scenes", "scenes and phantoms have weights above 0, and at least one case each")
        if self.cases:
            if self.dataset in dataset_names():
                raise FieldError("dataset", "a recipe that lists its cases learns from no paper's data set", value=self.dataset)
            check_list(self.cases, self.left_out, labels=self.labels, structures=self.structures)
        elif any(structure.label for structure in self.structures.values()):
            raise FieldError("structures", "in a cohort, the names of its labels tell the class", expected="no label")
        known = {case.known for case in self.cases}
        if known - {None} and self.loss is not LossName.PARTIAL:
            raise FieldError("loss", "cases of which only some organs are labelled have one loss", expected=LossName.PARTIAL)
        if len(known) > 1 and self.batch > 1:
            raise FieldError("batch", "the samples of a batch must know the same classes", value=self.batch, expected=1)

    def _check_network(self) -> None:
        """See that the network's scores are the labels, and that its tile goes through it."""
        found = facts(self.network.architecture, self.network.config)
        if found.classifies_frames:
            return
        count = len(self.labels)
        self.affine.check_sides(self.labels.values(), self.input.axis_codes)
        fitting = [count] if self.input.regions else [count + 1, *([1] if count == 1 else [])]
        if found.classes not in fitting:
            raise FieldError(
                "network",
                f"{self.network.architecture} has {found.classes} classes, and there are {count} labels",
                value=f"classes: {found.classes}",
                expected=f"classes: {fitting[0]}" + ("" if self.input.regions else ", the labels and the background"),
            )
        channels = 1 + len(self.input.channels)
        if found.in_channels != channels and self.input.modality != "RGB":
            raise FieldError(
                "network",
                f"{self.network.architecture} takes {found.in_channels} channels, and the input has {channels}",
                value=f"in_channels: {found.in_channels}",
                expected=f"in_channels: {channels}",
            )
        if not found.takes(self.input.tile):
            each = found.side_multiples or (found.size_multiple,) * (3 if self.input.tile[2] > 1 else 2)
            raise FieldError(
                "input",
                "the tile does not go through the network",
                value=f"tile: {list(self.input.tile)}",
                expected=f"sides that are multiples of {' x '.join(map(str, each))}",
            )

    @property
    def label_set(self) -> LabelSet:
        """What the network's classes mean."""
        return LabelSet.from_mapping(self.labels)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the result.

        Keys that came after the first release are left out at their default, so that runs that began before can go on.
        """
        content = asdict(self) | {"input": self.input.identity()}
        content["loop"] = {key: value for key, value in content["loop"].items() if value or key not in ("frozen", "rates")}
        for key in fields(self):
            if key.name in _LATER and getattr(self, key.name) == _default(key):
                del content[key.name]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


_BELONGS_TO = {"patches": ("structures", "cases", "scenes"), "cases": ("phantoms", "left_out", "negatives")}
"""Keys that mean something only beside another one."""

_LATER = (
    *("channel_shift", "augment", "patches", "structures", "cases", "left_out", "negatives"),
    *("scenes", "scenes_each", "phantoms", "phantoms_each", "wins_from", "stop_after"),
)
"""Keys that came after the first release."""


def _default(key: Field[Any]) -> Any:
    return key.default if key.default_factory is MISSING else key.default_factory()


def plain(value: Any) -> Any:
    """Dataclass content as YAML holds it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def to_yaml(recipe: Recipe) -> str:
    """A recipe as its file holds it, every key written out."""
    return yaml.safe_dump(plain(asdict(recipe)), sort_keys=False, allow_unicode=True, width=120)


def recipe_names() -> tuple[str, ...]:
    """Every recipe in ``train/recipes``."""
    return tuple(sorted(path.stem for path in resource_path("train/recipes").glob("*.yaml")))


def packaged_names() -> tuple[str, ...]:
    """Every recipe in ``train/packaged``."""
    return tuple(sorted(path.stem for path in resource_path("train/packaged").glob("*.yaml")))


def find_recipe(name: str | Path) -> Recipe:
    """A recipe by name, or from a YAML file of one's own.

    Raises
    ------
    RecipeError
        If there is none, or it does not hold together; with the line.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = (*recipe_names(), *packaged_names())
        path = resource_path("train") / ("packaged" if str(name) in packaged_names() else "recipes") / f"{name}.yaml"
        if not path.exists():
            beside = Path(f"{name}.yaml")
            near = [str(beside)] if beside.exists() else difflib.get_close_matches(str(name), known, n=4, cutoff=0.5)
            raise RecipeError(
                f"unknown recipe {str(name)!r}",
                expected=f"one of {len(known)} recipes, or a YAML file of your own",
                hint=(f"Did you mean {' or '.join(near)}? " if near else "") + "All of them: agseg recipe list",
            )
    found = load(path, Recipe)
    if found.name != path.stem:
        raise RecipeError(
            "the file's name is not the recipe's",
            path=path,
            value=f"name: {found.name}",
            expected=path.stem,
            hint="Change the one or the other: runs are called after the recipe.",
        )
    return found
