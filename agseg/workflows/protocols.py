"""BFT, AFT and SCR for both networks on phantoms: the papers' Table 3 in small, as one command (``make protocols``).

Narrow networks on a coarse grid, so that it takes minutes on two cores. It shows that the machinery learns, transfers and
measures; it says nothing about patients, and no published number belongs to it. Run as ``python -m agseg.workflows.protocols``.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agseg.extras import require
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.training.evaluation import Evaluation, read_evaluation
from agseg.training.protocol import protocols
from agseg.training.recipe import Recipe, find_recipe
from agseg.training.table import METRICS, Table, make_table
from agseg.training.table_text import to_markdown
from agseg.training.trained_model import open_run
from agseg.workflows.evaluate import evaluate_protocol
from agseg.workflows.evaluation_report import write_table
from agseg.workflows.phantom import make_phantom
from agseg.workflows.train import RunPlace, run_training

MODELS = ("unet3d", "attention-unet3d")
"""The networks of Table 3."""

SPLIT = "61-21"

Say = Callable[[str], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProtocolsPlan:
    """How large the experiment is.

    Parameters
    ----------
    source_cases, target_cases
        Phantoms of the two sites; 21 of 82 target cases are tested.
    coarsen
        Multiplies the phantoms' voxel spacing.
    seed
        Of phantoms and training.
    steps
        Replaces the recipes' number of steps (for tests).
    processes
        Networks trained at a time, each on one thread: the numbers do not depend on it.
    """

    source_cases: int = 30
    target_cases: int = 48
    coarsen: float = 1.6
    seed: int = 1
    steps: int | None = None
    processes: int = 2


def run_protocols(output: Path, plan: ProtocolsPlan | None = None, *, say: Say = lambda _: None) -> dict[str, Any]:
    """Make the phantoms, train, evaluate, and write ``protocols.json``, ``protocols.md`` and ``protocols.png``.

    Parameters
    ----------
    output
        Folder; its ``work`` folder is emptied first.
    plan
        See :class:`ProtocolsPlan`.
    say
        Hears one line per finished part.

    Returns
    -------
    dict
        The content of ``protocols.json``.
    """
    plan = plan or ProtocolsPlan()
    began = time.monotonic()
    work = make_folder(output) / "work"
    if work.exists():
        shutil.rmtree(work)
    for site, cases in (("ct150", plan.source_cases), ("ct82", plan.target_cases)):
        made = make_phantom(site, cases=cases, output=work / site, seed=plan.seed, coarsen=plan.coarsen)
        say(f"{made['cases']} phantoms of {site} after {time.monotonic() - began:.0f} s")
    if plan.processes > 1:
        # A fresh interpreter per network: forked threads of torch hang.
        spawn = multiprocessing.get_context("spawn")
        level = logging.getLogger().getEffectiveLevel()
        with ProcessPoolExecutor(plan.processes, mp_context=spawn, initializer=_speak, initargs=(level,)) as pool:
            spent = list(pool.map(_one_network, MODELS, [work] * len(MODELS), [plan] * len(MODELS)))
    else:
        spent = [_one_network(model, work, plan) for model in MODELS]
    evaluations = [read_evaluation(work / f"evaluation-{model}-{p.name}") for p in protocols() for model in MODELS]
    table = make_table(evaluations)
    seconds = time.monotonic() - began
    say(f"{len(evaluations)} rows after {seconds:.0f} s")
    content = _document(table, plan, dict(zip(MODELS, spent, strict=True)), seconds)
    write_text(output / "protocols.json", json.dumps(content, indent=2) + "\n")
    write_text(output / "protocols.md", _page(table, content))
    write_table(output, table)
    _draw(output / "protocols.png", evaluations)
    return content


def _speak(level: int) -> None:
    """What a network's process has to say is heard as this process's is."""
    logging.basicConfig(level=level, format="%(message)s")


def _one_network(model: str, work: Path, plan: ProtocolsPlan) -> dict[str, float]:
    """Source training, then every protocol, for one network; returns seconds per part."""
    import torch

    torch.set_num_threads(1)  # the same numbers on any machine
    spent: dict[str, float] = {}
    source = work / f"run-{model}-source"
    spent["source"] = _train(_recipe(f"{model}-phantom-ct150", plan), work / "ct150", source)
    _log.info("%s: source trained in %.0f s", model, spent["source"])
    for found in protocols():
        run = source
        if found.trains:
            run = work / f"run-{model}-{found.name}"
            start = open_run(source) if found.name == "aft" else None
            recipe = _recipe(f"{model}-phantom-ct82-{found.name}", plan)
            spent[found.name] = _train(recipe, work / "ct82", run, start)
            _log.info("%s: %s trained in %.0f s", model, found.name.upper(), spent[found.name])
        began = time.monotonic()
        report = work / f"evaluation-{model}-{found.name}"
        evaluate_protocol(open_run(run), protocol_name=found.name, data=work / "ct82", output=report, split=SPLIT)
        spent[f"evaluate {found.name}"] = time.monotonic() - began
    return {part: round(seconds, 1) for part, seconds in spent.items()}


def _recipe(name: str, plan: ProtocolsPlan) -> Recipe:
    recipe = find_recipe(name)
    steps = recipe.loop.steps if plan.steps is None else plan.steps
    warmup = min(recipe.loop.warmup_steps, steps // 2)
    return replace(recipe, loop=replace(recipe.loop, seed=plan.seed, steps=steps, warmup_steps=warmup))


def _train(recipe: Recipe, data: Path, run: Path, start: Any = None) -> float:
    began = time.monotonic()
    run_training(recipe, RunPlace(data, run, device="cpu"), source=start)
    return time.monotonic() - began


def _document(table: Table, plan: ProtocolsPlan, spent: dict[str, dict[str, float]], seconds: float) -> dict[str, Any]:
    rows = [
        {
            "protocol": row.protocol.upper(),
            "model": row.model,
            **{
                metric: {"mean": _known(row.summaries[metric].mean), "sd": _known(row.summaries[metric].sd)}
                for metric in METRICS
            },
            "n": row.n,
        }
        for row in table.rows
    ]
    tests = [
        {
            "first": c.first,
            "second": c.second,
            "metric": c.metric,
            "difference": _known(c.test.difference),
            "interval95": [_known(c.test.interval.low), _known(c.test.interval.high)],
            "p": _known(c.test.p),
            "p_holm": _known(c.p_holm),
            "n": c.test.n,
        }
        for c in table.comparisons
    ]
    recipes = {name: _recipe(f"unet3d-phantom-{name}", plan) for name in ("ct150", "ct82-aft", "ct82-scr")}
    first = recipes["ct150"]
    setup = {
        "data": "synthetic phantoms; no patient, and no published number to compare with",
        "cases": {"source": plan.source_cases, "target": plan.target_cases},
        "width": first.network.config["widths"],
        "steps": {name: recipe.loop.steps for name, recipe in recipes.items()},
        "batch": first.batch,
        "patch": list(first.input.tile),
        "spacing_mm": list(first.input.spacing_mm or ()),
        "seed": plan.seed,
        "threads_per_network": 1,
        "networks_at_a_time": plan.processes,
    }
    return {"rows": rows, "tests": tests, "setup": setup, "seconds": {"total": round(seconds, 1), **spent}}


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None


def _page(table: Table, content: dict[str, Any]) -> str:
    setup = content["setup"]
    return "\n".join(
        [
            "# Protocols on phantoms",
            "",
            "Synthetic scans and narrow networks: this shows that fine-tuning works here, and nothing about patients.",
            "",
            to_markdown(table),
            f"Widths {setup['width']}, steps {setup['steps']}, batch {setup['batch']}, patch {setup['patch']} at "
            f"{setup['spacing_mm']} mm, seed {setup['seed']}; {content['seconds']['total']:.0f} s in all.",
            "",
        ]
    )


def _draw(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """Dice per case, one column per protocol and network."""
    figure = require("matplotlib.figure", purpose="the picture").Figure(figsize=(8, 4.5), layout="constrained")
    require("matplotlib.backends.backend_agg", purpose="the picture").FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    jitter = np.random.default_rng(0)
    for place, evaluation in enumerate(evaluations):
        dice = np.array(list(evaluation.values("pancreas", "dice").values()))
        colour = "tab:blue" if evaluation.model == MODELS[0] else "tab:orange"
        axes.boxplot(dice[np.isfinite(dice)], positions=[place], widths=0.6, showfliers=False)
        axes.plot(place + jitter.uniform(-0.15, 0.15, dice.size), dice, "o", color=colour, markersize=3, alpha=0.7)
    axes.set_xticks(range(len(evaluations)), [e.name.replace(" ", "\n") for e in evaluations], fontsize=8)
    axes.set_ylabel("pancreas Dice per case")
    axes.set_ylim(0, 1)
    axes.set_title("Phantoms, narrow networks")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_protocols(Path("build/protocols"), say=logging.getLogger(__name__).info)
