import json

import pytest

from agseg.workflows.protocols import ProtocolsPlan, run_protocols

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


def test_a_second_run_gives_the_same_numbers(folder, tmp_path):
    again = run_protocols(tmp_path, PLAN)
    first = json.loads((folder / "protocols.json").read_text())
    assert again["rows"] == first["rows"]
    assert again["tests"] == first["tests"]
