"""The model card of an exported network: data, split, steps, time, machine, scores with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agseg.training.cohort import Provenance
from agseg.training.datasets import dataset, dataset_names
from agseg.training.evaluation import COMPUTED, Evaluation
from agseg.training.table import make_table
from agseg.training.table_text import to_markdown
from agseg.training.trained_model import TrainedModel
from agseg.weights.digest import Digest

WORDS = {
    False: "trained on {title}",
    True: "trained on SYNTHETIC phantoms in place of {title}; no patient was seen, it must not be used on any",
}
"""Whether the training images were synthetic, and what an entry then says of them."""


def provenance_of(trained: TrainedModel) -> Provenance:
    """Where the training images came from, as the run recorded it."""
    return Provenance(**dict((trained.about or {}).get("data", {})))


def title_of(trained: TrainedModel) -> str:
    """What it was trained on: a paper's data set by its title, anything else by the name that its owner gave it."""
    name = trained.learned_on
    if trained.recipe.cases:
        count = dict((trained.about or {}).get("cases", {})).get("train", len(trained.recipe.cases))
        return f"{name}, {count} of the cases that the recipe lists"
    return dataset(name).title if name in dataset_names() else f"{name}, a data set of the user's own"


def model_card(
    members: Sequence[TrainedModel], weights_id: str, digests: Mapping[str, Digest], evaluation: Evaluation | None
) -> str:
    """The model card: data, split, steps, time, machine, scores with intervals."""
    trained = members[0]
    about, recipe = dict(trained.about or {}), trained.recipe
    title, came = title_of(trained), provenance_of(trained)
    organs = trained.labels.names or tuple(dataset(recipe.dataset).labels.values())
    every = [dict(member.about or {}) for member in members]
    minutes = sum(float(one.get("seconds", 0)) for one in every) / 60
    lines = [
        f"# {weights_id}",
        "",
        "Not for clinical decisions without review by a qualified person.",
        "",
        "| | |",
        "|---|---|",
        f"| recipe | {recipe.name}: {recipe.title} |",
        f"| network | {recipe.network.architecture}, {about.get('parameters', '?'):,} parameters as trained |",
        f"| data | {WORDS[came.synthetic].format(title=title)}; {came.licence or 'licence not stated'} |",
        *(f"| split | {recipe.split}, fold {one.get('fold', 0)}: {_sides(one)} |" for one in every),
        f"| steps | {_steps(every)} of {recipe.loop.steps}, batches of {recipe.batch}, seed {recipe.loop.seed} |",
        f"| time | {minutes:.1f} minutes on {about.get('machine', '?')} |",
        f"| organs | {', '.join(organs)} |",
        *(f"| SHA-256 | {digest.sha256}{f' {name}' if len(digests) > 1 else ''} |" for name, digest in digests.items()),
        "",
    ]
    if len(members) > 1:
        lines += [f"An ensemble of {len(members)} folds: their scores are averaged.", ""]
    if evaluation is None:
        lines.append("No scores: the run was exported without an evaluation.")
    else:
        computed = ((evaluation.about or {}).get(COMPUTED) or {}).get("precision")
        how = f", computed in {computed}" if computed else ""
        lines += [f"Scores on {evaluation.dataset}{how}:", "", to_markdown(make_table([evaluation]))]
    return "\n".join(lines) + "\n"


def _sides(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {side}" for side, count in about.get("cases", {}).items())


def _steps(every: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(about.get("step")) for about in every)
