"""Every published figure stands in the table or section it is said to stand in; what cannot be right is flagged."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from agseg.models.published import PUBLISHED
from agseg.training.datasets import dataset_names
from agseg.training.published import Figure, PublishedRow, published_rows
from agseg.training.recipe import find_recipe, recipe_names
from agseg.training.splits import plan_of, split_cases
from tests.conftest import SHARED

ROWS = published_rows()

COUNTED = ("dice", "iou", "precision", "recall", "specificity", "accuracy")
"""Metrics that follow from counts, so that some of them follow from others."""


# The papers' texts.

PAPERS = {
    "Attention Gated Networks (2019)": "000_*.txt",
    "Attention Gated Networks, preprint (2018)": "001_*.txt",
    "ANU-Net (2020)": "003_*.txt",
    "FocusNet (2019)": "004_*.txt",
}

METRICS = {
    "DSC": "dice",
    "Dice Score": "dice",
    "Dice": "dice",
    "DI": "dice",
    "Pancreas DSC": "dice",
    "IoU": "iou",
    "JI": "iou",
    "Precision": "precision",
    "Recall": "recall",
    "SE": "recall",
    "SP": "specificity",
    "AC": "accuracy",
    "Accuracy": "accuracy",
    "F1": "f1",
    "S2S Dist": "s2s_mm",
    "IOU Mean": "iou",
    "Cor.": "correct",
    "Rel.": "relative_correct",
    "Predict Time": "seconds",
    "Parameters Amounts": "parameters_m",
}
"""A column's (in Table 1: a row's) name in print, without what stands in brackets, to ours."""

NO_RATIO = {"s2s_mm", "seconds", "parameters_m"}


@pytest.fixture(scope="module")
def papers() -> Path:
    folder = SHARED / "papers"
    if not folder.is_dir():
        pytest.skip("needs the papers' texts in ../shared/papers")
    return folder


@lru_cache
def text_of(folder: Path, paper: str) -> str:
    (path,) = folder.glob(PAPERS[paper])
    return path.read_text(encoding="utf-8")


def plain(cell: str) -> str:
    """A cell without markup, references and remarks."""
    bare = re.sub(r"<sup>.*?</sup>|</?\w+>|\*\*|\[\d+\]|\(ours\)|\$", "", cell).replace(r"\pm", "±")
    return re.sub(r"(?<=\w)\*|\*(?=\w)", "", bare).strip()


def cells_of(folder: Path, paper: str, number: int) -> list[list[str]]:
    """A printed table: the block of lines with tabs that follows its caption; in FocusNet's text, the one before."""
    lines = text_of(folder, paper).splitlines()
    caption = next(n for n, line in enumerate(lines) if re.match(rf"\*\*Table {number}\.?\*\*", line))
    step = -1 if paper.startswith("FocusNet") else 1
    at = caption
    while "\t" not in lines[at]:
        at += step
    block = []
    while 0 <= at < len(lines) and "\t" in lines[at]:
        block.append([plain(cell) for cell in lines[at].split("\t")])
        at += step
    return block[::step]


def figure(cell: str, metric: str) -> Figure:
    """``a``, ``a ± b``, ``a (b)``: mean, with its standard deviation or, of precision, recall and F1, its gain."""
    numbers = [float(found) for found in re.findall(r"-?\d*\.\d+", cell)]
    scale = 100 if metric not in NO_RATIO and numbers[0] > 1 else 1
    mean, second = numbers[0] / scale, numbers[1] / scale if len(numbers) > 1 else None
    if "(" in cell and metric in ("precision", "recall", "f1"):
        return Figure(mean, None, second)
    return Figure(mean, second)


def metric_of(title: str) -> str | None:
    return METRICS.get(re.sub(r"\(.*?\)", "", title).strip())


def printed_in(folder: Path, paper: str, number: int) -> list[tuple[str, str, dict[str, dict[str, Figure]]]]:
    """(method, what else its line says, organ or class or "" to metric to figure) for every method of a table."""
    block = cells_of(folder, paper, number)
    if paper.startswith("Attention") and number == 1:  # methods are columns
        found = []
        for column in range(1, len(block[0])):
            scores: dict[str, dict[str, Figure]] = {}
            for title, *values in block[2:]:
                organ, _, metric = title.partition(" ")
                if (name := metric_of(metric)) is not None:
                    scores.setdefault(organ.lower(), {})[name] = figure(values[column - 1], name)
            found.append((block[0][column], block[1][column], scores))
        return found
    if paper.startswith("Attention") and number in (6, 7):  # lines are classes of one method
        titles = [metric_of(title) for title in block[0]]
        by_class = {line[0]: {m: figure(c, m) for m, c in zip(titles, line, strict=True) if m} for line in block[1:]}
        return [(f"AG-Sononet-{8 if number == 6 else 16}", "", by_class)]
    titles = [metric_of(title) for title in block[0]]
    found, group = [], ""
    for line in block[1:]:
        group = line[0] or group  # Table 3 prints a protocol once, for two lines
        method = line[block[0].index("Method")] if "Method" in block[0] else line[0]
        rest = " ".join(cell for title, cell in zip(titles, line, strict=True) if title is None)
        found.append((method, f"{group} {rest}", {"": {m: figure(c, m) for m, c in zip(titles, line, strict=True) if m}}))
    return found


def preprint_table_5(folder: Path) -> dict[str, dict[str, Figure]]:
    """Its columns are accuracy, F1, precision, recall."""
    text = text_of(folder, "Attention Gated Networks, preprint (2018)")
    lines = re.findall(r"^((?:AG-)?Sononet-\S+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) ", text, re.M)
    names = ("accuracy", "f1", "precision", "recall")
    return {method: {n: Figure(float(v)) for n, v in zip(names, values, strict=True)} for method, *values in lines}


def same(one: dict[str, Figure], other: dict[str, Figure]) -> bool:
    """Whether two rows hold the same metrics with the same figures; percentages are divided, so up to rounding."""

    def rounded(figures: dict[str, Figure]) -> dict[str, list[float | None]]:
        return {m: [None if v is None else round(v, 6) for v in (f.mean, f.sd, f.gain)] for m, f in figures.items()}

    return rounded(one) == rounded(other)


@pytest.mark.shared
@pytest.mark.parametrize("key", ROWS)
def test_every_row_stands_in_the_paper_where_it_says(key, papers):
    row = ROWS[key]
    paper, _, place = row.source.rpartition(", ")
    kind, number = place.split()
    text = text_of(papers, paper)
    if kind == "section":
        assert re.search(rf"^#+ {re.escape(number)}\b", text, re.M)
        section = re.split(r"^#+ ", text[text.index(f"# {number}") :], flags=re.M)[1]
        ((name, score),) = row.scores["pancreas"].items()
        assert (name, f"{100 * score.mean:.2f} \\pm {100 * score.sd:.2f}") == ("dice", "81.48 \\pm 6.23")
        assert "81.48 \\pm 6.23" in section
        return
    if "preprint" in paper:
        assert same(preprint_table_5(papers)[row.method], row.scores["planes"])
        return
    told_apart = paper.startswith("Attention") and int(number) <= 4  # by split, capacity or protocol, our setting's first word
    candidates = [
        figures
        for method, told, figures in printed_in(papers, paper, int(number))
        if method == row.method and (not told_apart or row.setting.replace(",", "").split()[0] in told.split())
    ]
    ours = {organ.casefold(): scores for organ, scores in row.scores.items()}
    assert any(
        {organ.casefold() or next(iter(ours)) for organ in theirs} == set(ours)
        and all(same(scores, ours[organ.casefold() or next(iter(ours))]) for organ, scores in theirs.items())
        for theirs in candidates
    ), candidates


@pytest.mark.shared
@pytest.mark.parametrize(
    ("paper", "numbers"),
    [("Attention Gated Networks (2019)", range(1, 8)), ("ANU-Net (2020)", range(2, 7)), ("FocusNet (2019)", (1, 2))],
)
def test_no_method_of_a_results_table_is_missing(paper, numbers, papers):
    for number in numbers:
        printed = sorted(method for method, _, _ in printed_in(papers, paper, number))
        taken = [row for row in ROWS.values() if row.source == f"{paper}, Table {number}"]
        assert sorted(row.method for row in taken) == printed, number
    everyone = preprint_table_5(papers) if "Attention" in paper else {}
    ours = [row.scores["planes"] for row in ROWS.values() if "planes" in row.scores]
    assert all(any(same(row, mine) for mine in ours) for row in everyone.values())


@pytest.mark.shared
def test_parameter_counts_are_those_in_print(papers):
    for name, network in PUBLISHED.items():
        if network.published_m is None or "Table" not in network.source or "Tables" in network.source:
            continue
        paper, _, place = network.source.rpartition(", ")
        text = text_of(papers, paper)
        start = text.index(f"{place}:" if "preprint" in paper else f"**{place}**")
        table = re.split(r"Table \d", text[start + len(place) + 2 :])[0]
        assert re.search(rf"(?<![\d.]){network.published_m:.{network.decimals}f}(?!\d)", table), name


# What needs no paper.


def test_a_key_begins_with_its_data_set_and_a_recipe_names_a_row_of_its_own():
    assert {key.split(".")[0] for key in ROWS} <= set(dataset_names())
    for name in recipe_names():
        recipe = find_recipe(name)
        if recipe.published is not None:
            assert recipe.published.startswith(f"{recipe.dataset}.")
            assert ROWS[recipe.published].source.startswith(recipe.source.partition(",")[0])
            assert ROWS[recipe.published].source.rpartition(", ")[2] == recipe.source.rpartition(", ")[2]


@pytest.mark.parametrize(
    ("data", "split", "cases", "train", "validation", "test"),
    [("ct82", "61-21", 80, 54, 6, 20), ("ct150", "120-30", 150, 108, 12, 30), ("ct150", "30-120", 150, 27, 3, 120)],
)
def test_a_cohort_is_cut_as_docs_departures_says(data, split, cases, train, validation, test):
    rule = plan_of(data).splits[split]
    (cut,) = split_cases([f"case_{n:04d}" for n in range(cases)], rule)
    assert (len(cut.train), len(cut.validation), len(cut.test)) == (train, validation, test)
    assert data != "ct82" or f"{train + validation}/{test}" in rule.source
    page = (Path(__file__).resolve().parents[2] / "docs/departures.md").read_text(encoding="utf-8")
    assert f"{train} of {train + validation}" in page


def impossible(row: PublishedRow, scores: dict[str, Figure]) -> bool:
    """Whether no counts, and no mean over images of what follows from counts, could give these figures, rounding allowed."""
    v = {name: f.mean for name, f in scores.items()}
    off = 2e-4 if any(round(x, 3) != round(x, 4) for n, x in v.items() if n in COUNTED) else 2e-3
    if {"accuracy", "iou"} <= v.keys() and v["iou"] >= v["accuracy"]:
        return True  # equal only where no image has a true negative, and then there is no specificity
    if "dice" in v and "iou" in v:
        most = 2 * v["iou"] / (1 + v["iou"])  # Jensen: the mean of Dice is at most that of the mean IoU
        if v["dice"] > most + off or v["dice"] < v["iou"] - off or (row.pooled and abs(v["dice"] - most) > off):
            return True
    if row.pooled and {"dice", "precision", "recall"} <= v.keys():
        return abs(v["dice"] - 2 * v["precision"] * v["recall"] / (v["precision"] + v["recall"])) > off
    return False


@pytest.mark.parametrize("key", ROWS)
def test_a_row_is_flagged_exactly_where_its_figures_contradict_each_other(key):
    row = ROWS[key]
    assert bool(row.flag) == any(impossible(row, scores) for scores in row.scores.values())


@pytest.mark.shared
def test_a_section_that_a_split_or_recipe_cites_speaks_of_it(papers):
    text = text_of(papers, "Attention Gated Networks (2019)")
    cited = [rule.source for name in dataset_names() for rule in plan_of(name).splits.values()]
    cited += [find_recipe(name).source for name in recipe_names()]
    found = [(number, source) for source in cited for number in re.findall(r"section ([\d.]*\d)", source)]
    assert found
    for number, source in found:
        section = re.split(rf"^#+ {re.escape(number)} ", text, flags=re.M)[1].split("\n#")[0].replace(", 243", ",243")
        assert all(figure in section for figure in re.findall(r"\d+,\d+", source)), source
        assert ("cross-validation" if number == "3.3.1" else "Sononet") in section, source
