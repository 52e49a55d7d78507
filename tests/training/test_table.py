import csv
import io
import json
import math
from dataclasses import replace

import pytest

from agseg.errors import RecipeError
from agseg.measure.overlap import Overlap
from agseg.training.evaluation import (
    COMPUTED,
    EXPERIMENT,
    NOT_SCORED,
    Evaluation,
    nnunet_summary,
    per_case_csv,
    read_evaluation,
    write_evaluation,
)
from agseg.training.scoring import CaseScore
from agseg.training.table import make_table
from agseg.training.table_text import to_csv, to_latex, to_markdown


def score(case, hits, misses, *, organ="pancreas", s2s=2.0):
    return CaseScore(case, organ, Overlap(hits, misses, misses, 1000), s2s, s2s, s2s, 0.008)


def evaluation(protocol, hits, model="unet3d", published=None):
    cases = tuple(score(f"case{n}", h, 20, s2s=100 / h) for n, h in enumerate(hits))
    return Evaluation(protocol, model, "ct82", cases, published)


BFT = evaluation("bft", [50, 60, 70, 80, 90, 100], published="ct82.bft.unet3d")
AFT = evaluation("aft", [81, 92, 103, 114, 125, 136], published="ct82.aft.unet3d")


def test_the_published_row_stands_beside_ours():
    text = to_markdown(make_table([BFT, AFT]))
    assert "0.690 ± 0.132" in text
    assert "0.820 ± 0.043" in text
    assert "Attention Gated Networks (2019), Table 3" in text
    rows = list(csv.DictReader(io.StringIO(to_csv(make_table([AFT])))))
    dice = next(row for row in rows if row["metric"] == "dice")
    assert (dice["published_mean"], dice["published_sd"], dice["n"]) == ("0.82", "0.043", "6")
    assert float(dice["mean"]) == pytest.approx(sum(2 * h / (2 * h + 40) for h in (81, 92, 103, 114, 125, 136)) / 6, rel=1e-5)


def test_tests_are_paired_and_corrected_over_the_table():
    table = make_table([BFT, AFT])
    assert len(table.comparisons) == 4
    dice = next(c for c in table.comparisons if c.metric == "dice")
    assert dice.test.p == pytest.approx(2 / 64)
    assert dice.test.difference < 0  # first minus second
    assert dice.p_holm == pytest.approx(min(1, 4 * 2 / 64))


def test_rows_that_differ_in_two_things_are_not_tested():
    other = evaluation("aft", [50, 60, 70, 80, 90, 100], model="attention-unet3d")
    pairs = {(c.first, c.second) for c in make_table([BFT, AFT, other]).comparisons}
    assert pairs == {("BFT unet3d", "AFT unet3d"), ("AFT unet3d", "AFT attention-unet3d")}


def test_different_test_sets_are_never_compared():
    with pytest.raises(RecipeError, match="same cases"):
        make_table([BFT, evaluation("aft", [50, 60])])


def test_latex_is_a_complete_tabular():
    text = to_latex(make_table([BFT]))
    assert text.startswith(r"\begin{tabular}{llrrrrr}")
    assert text.rstrip().endswith(r"\end{tabular}")
    assert r"\textit{0.690 $\pm$ 0.132}" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") or r"\\ " in line]
    assert all(line.count("&") == 6 for line in body)


def test_cases_with_nothing_to_compare_are_counted_out_loud():
    empty = CaseScore("case9", "pancreas", Overlap(0, 0, 0, 1000), math.nan, math.nan, math.nan, 0.008)
    some = Evaluation("aft", "unet3d", "ct82", (*AFT.cases, empty))
    table = make_table([some])
    assert table.rows[0].n == 7
    assert table.rows[0].summaries["dice"].n == 6
    assert "6 of 7" in to_markdown(table)


def test_pooled_ratios_stand_in_columns_that_say_so_with_the_published_ones():
    """ANU-Net's ratios are of all counts together: two scans, one large and well found, one small and missed by half."""
    cases = (score("a", 90, 10, organ="liver"), score("b", 2, 2, organ="liver"))
    lits = Evaluation("scr", "unet", "lits", cases, "lits.liver.unet")
    (row,) = make_table([lits]).rows
    assert row.summaries["dice"].mean == pytest.approx((0.9 + 0.5) / 2)
    assert row.pooled["dice"] == pytest.approx(92 / 104)
    head, _, ours, published = to_markdown(make_table([lits])).splitlines()[:4]
    at = {name.strip(): n for n, name in enumerate(head.split("|"))}
    assert {"DSC", "DSC, pooled", "IoU, pooled"} <= at.keys()
    assert "IoU" not in at  # the paper prints none per scan
    assert published.split("|")[at["DSC, pooled"]].strip() == "0.9445"
    assert published.split("|")[at["DSC"]].strip() == "–"
    assert ours.split("|")[at["DSC, pooled"]].strip() == f"{92 / 104:.4f}"
    lines = {line["metric"]: line for line in csv.DictReader(io.StringIO(to_csv(make_table([lits]))))}
    assert (lines["dice_pooled"]["published_mean"], lines["dice"]["published_mean"]) == ("0.9445", "")
    assert (lines["iou_pooled"]["sd"], lines["iou_pooled"]["mean"]) == ("", f"{92 / 116:.6g}")
    assert all(
        line.count("&") == head.count("|") - 2 for line in to_latex(make_table([lits])).splitlines() if line.endswith(r"\\")
    )


def test_a_picture_has_focusnets_metrics_and_distances_in_pixels():
    cases = tuple(replace(score(f"{n}", 30 + n, 10, organ="lesion"), unit="px", voxel_ml=math.nan) for n in range(3))
    ours = Evaluation("scr", "focusnet", "isic2017", cases, "isic2017.focusnet")
    text = to_markdown(make_table([ours]))
    head, _, _, published = text.splitlines()[:4]
    at = {name.strip(): n for n, name in enumerate(head.split("|"))}
    printed = {"DSC": "0.8315", "IoU": "0.7562", "Recall": "0.7673", "Specificity": "0.9896", "Accuracy": "0.9214"}
    assert {name: published.split("|")[at[name]].strip() for name in printed} == printed
    assert "S2S (pixels)" in at
    assert "mm" not in text
    assert "LIN" in text  # another method's row, below
    assert "_mm" not in per_case_csv(ours)
    assert "ml" not in per_case_csv(ours).splitlines()[0]
    synthetic = replace(ours, published=None, about={EXPERIMENT: "isic2017.focusnet"})
    assert "published" not in to_markdown(make_table([synthetic]))
    assert "LIN" not in to_markdown(make_table([synthetic]))


def test_the_table_says_how_masks_were_computed():
    plain = {"precision": "fp32", "mirror": False, "largest": []}
    one, other = (replace(e, about={COMPUTED: plain}) for e in (BFT, AFT))
    assert "Masks computed in fp32." in make_table([one, other]).notes
    mirrored = replace(AFT, about={COMPUTED: {"precision": "bf16", "mirror": True, "largest": ["pancreas"]}})
    notes = make_table([one, mirrored]).notes
    assert "Masks of BFT unet3d computed in fp32." in notes
    told = "averaged over the mirrored scan, only the largest component of pancreas kept"
    assert f"Masks of AFT unet3d computed in bf16, {told}." in notes


def test_private_data_are_said_to_be_private():
    ct150 = Evaluation("scr", "unet3d", "ct150", BFT.cases, "ct150.120-30.unet3d")
    assert "private" in to_markdown(make_table([ct150]))
    assert "private" not in to_markdown(make_table([BFT]))


def test_a_print_that_cannot_be_right_says_so_beside_the_table():
    cases = tuple(replace(score("a", 30, 10, organ="lung"), unit="px") for n in range(3))
    text = to_markdown(make_table([Evaluation("scr", "focusnet", "lung", cases, "lung.focusnet")]))
    assert "JI is not below AC" in text


def test_what_is_written_is_read_and_holds_no_nan(tmp_path):
    empty = CaseScore("case9", "pancreas", Overlap(0, 0, 0, 1000), math.nan, math.nan, math.nan, 0.008)
    some = Evaluation("aft", "unet3d", "ct82", (*AFT.cases, empty), "ct82.aft.unet3d", {"split": "61-21"})
    write_evaluation(tmp_path, some)
    for name in ("evaluation.json", "summary.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=lambda text: pytest.fail(text))
    again = read_evaluation(tmp_path)
    assert again.cases[:-1] == some.cases[:-1]
    assert math.isnan(again.cases[-1].s2s)
    assert (again.about, again.published) == (some.about, some.published)
    earlier = json.loads((tmp_path / "evaluation.json").read_text().replace('"s2s"', '"s2s_mm"'))
    for case in earlier["cases"]:
        del case["unit"]
    (tmp_path / "evaluation.json").write_text(json.dumps(earlier))
    assert read_evaluation(tmp_path).cases[:-1] == some.cases[:-1]
    with pytest.raises(RecipeError, match="no evaluation"):
        read_evaluation(tmp_path / "none")


def test_nnunet_summary_by_hand():
    two = Evaluation("", "", "x", (score("a", 10, 10), score("b", 30, 10), score("a", 5, 5, organ="liver")))
    summary = nnunet_summary(two, {"a": ("p/a", "r/a")})
    assert summary["mean"]["1"]["Dice"] == pytest.approx((20 / 40 + 60 / 80) / 2)
    assert summary["mean"]["1"]["TP"] == 20
    assert summary["foreground_mean"]["Dice"] == pytest.approx((0.625 + 0.5) / 2)
    assert summary["metric_per_case"][0]["prediction_file"] == "p/a"
    assert summary["metric_per_case"][0]["metrics"]["2"]["n_ref"] == 10


def test_per_case_csv_has_a_line_per_case_and_organ():
    rows = list(csv.DictReader(io.StringIO(per_case_csv(BFT))))
    assert [row["case"] for row in rows] == [f"case{n}" for n in range(6)]
    assert float(rows[0]["truth_ml"]) == pytest.approx(70 * 0.008)


def test_a_note_stands_once():
    unscored = replace(evaluation("", [50, 60]), about={NOT_SCORED: {"case7": "no prediction", "case9": "no prediction"}})
    text = to_markdown(make_table([unscored]))
    assert text.count("2 of 4 cases have no score. case7, case9: no prediction.") == 1
