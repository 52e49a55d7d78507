import json
import logging

import pytest

from agseg.workflows.protocols import ProtocolsPlan, run_protocols

pytestmark = pytest.mark.slow

PLAN = ProtocolsPlan(source_cases=4, target_cases=6, coarsen=5.0, steps=1, processes=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("protocols")
    run_protocols(output, PLAN)
    return output


def test_six_rows_with_every_metric(folder):
    content = json.loads((folder / "protocols.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    rows = [(row["protocol"], row["model"]) for row in content["rows"]]
    assert rows == [(protocol, model) for protocol in ("BFT", "AFT", "SCR") for model in ("unet3d", "attention-unet3d")]
    for row in content["rows"]:
        assert row["n"] == 2
        assert all(set(row[metric]) == {"mean", "sd"} for metric in ("dice", "precision", "recall", "s2s_mm"))
    assert len(content["tests"]) == 9 * 4  # six pairs of protocols and three of networks, four metrics each
    assert {"width", "steps", "patch", "spacing_mm", "seed"} <= set(content["setup"])


def test_people_get_a_page_and_a_picture(folder):
    assert "nothing about patients" in (folder / "protocols.md").read_text()
    assert (folder / "protocols.png").read_bytes().startswith(b"\x89PNG")
    assert "published" not in (folder / "table.md").read_text()


def test_a_second_run_gives_the_same_numbers_and_tells_every_training(folder, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="agseg"):
        again = run_protocols(tmp_path, PLAN)
    told = [record.getMessage().partition(" trained")[0] for record in caplog.records if " trained in " in record.getMessage()]
    assert told == [f"{model}: {part}" for model in ("unet3d", "attention-unet3d") for part in ("source", "AFT", "SCR")]
    first = json.loads((folder / "protocols.json").read_text())
    assert again["rows"] == first["rows"]
    assert again["tests"] == first["tests"]
