"""A site's defaults: the command line wins over the file, a section over the top, and nothing unknown is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from agseg.cli.app import app as real
from agseg.cli.site_config import Commands, Config
from agseg.errors import UsageError


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Run a small command line of the same make; returns what its command was given."""
    monkeypatch.setenv("AGSEG_HOME", str(tmp_path))
    said: dict[str, object] = {}
    app = typer.Typer(cls=Commands)

    @app.callback()
    def root(_config: Config = None) -> None: ...

    @app.command("work")
    def work(
        output: Annotated[Path, typer.Option("--output", "-o")] = Path("out"),
        min_age: float = 0.0,
        organ: list[str] | None = None,
        preview: Annotated[bool, typer.Option("--preview/--no-preview")] = True,
    ) -> None:
        said.update(output=output, min_age=min_age, organ=organ, preview=preview)

    @app.command("rest")
    def rest(*, hours: int = 1) -> None:
        said.update(hours=hours)

    def run(*arguments: object) -> dict[str, object]:
        said.clear()
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        return dict(said)

    return run


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins_over_a_section_and_a_section_over_the_top(seen, tmp_path):
    file = written(tmp_path / "a.yaml", "min_age: 5\nhours: 3\nwork: {organ: liver, preview: false, min-age: 7}\n")
    expected = {"output": Path("out"), "min_age": 7.0, "organ": ["liver"], "preview": False}
    assert seen("work", "--config", file) == expected
    assert seen("--config", file, "work") == expected
    assert seen("work", "--config", file, "--min-age", 9, "--preview") == expected | {"min_age": 9.0, "preview": True}
    assert seen("rest", "--config", file) == {"hours": 3}


def test_the_file_in_the_home_folder_is_read_unless_another_is_named(seen, tmp_path):
    written(tmp_path / "config.yaml", "output: /srv/out\n")
    assert seen("work")["output"] == Path("/srv/out")
    assert seen("work", "--config", written(tmp_path / "none.yaml", ""))["output"] == Path("out")


@pytest.mark.parametrize(
    "text",
    ["speed: 1", "work: {hours: 2}", "other: {hours: 2}", "help: true", "debug: true", "[1]", "output: ["],
)
def test_what_is_unknown_or_no_mapping_is_refused_for_every_command(seen, tmp_path, text):
    with pytest.raises(UsageError) as refused:
        seen("rest", "--config", written(tmp_path / "bad.yaml", f"{text}\n"))
    assert refused.value.path == tmp_path / "bad.yaml"


def test_a_value_that_no_option_takes_is_refused(seen, tmp_path):
    with pytest.raises(UsageError, match="output"):
        seen("work", "--config", written(tmp_path / "bad.yaml", "output: {a: 1}\n"))


@pytest.mark.parametrize(("text", "key", "value"), [("min-age: big", "min-age", "big"), ("work: {preview: 7}", "preview", "7")])
def test_a_value_of_the_wrong_kind_is_refused_with_file_key_and_value(seen, tmp_path, text, key, value):
    with pytest.raises(UsageError, match=f"'{key}' does not take this value: found {value}, expected") as refused:
        seen("work", "--config", written(tmp_path / "bad.yaml", f"{text}\n"))
    assert refused.value.path == tmp_path / "bad.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precision: fast", "precision: fast"),
        ("segment: {device: foo}", "device: foo"),
        ("deadline: 0", "deadline: 0"),
        ("device: gpu:99", "device: gpu:99"),
        ("organ: [liver, pancras]", "organ: pancras"),
        ("output-type: mesh", "output-type: mesh"),
    ],
)
def test_a_value_that_the_command_refuses_later_is_said_to_be_the_files(tmp_path, text, said):
    file = written(tmp_path / "bad.yaml", f"{text}\n")
    refused = CliRunner().invoke(real, ["segment", str(tmp_path), "--config", str(file)]).exception
    assert isinstance(refused, UsageError)
    assert refused.path == file
    assert f"The file says {said}." in refused.hint
    for wrong in (["--deadline", "-1"], ["--part-id", "9"]):
        mine = CliRunner().invoke(real, ["segment", "x", "--config", str(written(tmp_path / "a.yaml", "")), *wrong]).exception
        assert mine.path is None


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("segment x --overlap 2", "2"),
        ("segment x --overlap big", "big"),
        ("phantom us --cases 1 -o x", "1"),
        ("classify-us x --every 0", "0"),
        ("pacs pull --pacs https://h/d --limit 0", "0"),
    ],
)
def test_a_value_that_an_option_refuses_is_repeated(command, value):
    refused = CliRunner().invoke(real, command.split(), env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    words = refused.stderr.split("Invalid value")[1]
    assert f"{value}'" in words or f" {value}" in words


def test_a_file_is_data_and_never_code(seen, tmp_path):
    with pytest.raises(UsageError, match="YAML"):
        seen("work", "--config", written(tmp_path / "evil.yaml", f"output: !!python/object/apply:os.mkdir ['{tmp_path}/made']"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("command", ["segment", "inspect", "classify-us", "pacs pull", "weights list", "doctor", "train"])
def test_every_command_takes_it(command):
    assert "--config" in CliRunner().invoke(real, [*command.split(), "--help"], env={"COLUMNS": "200"}).stdout


def test_a_value_that_was_typed_is_not_said_to_be_the_files(tmp_path):
    file = written(tmp_path / "good.yaml", "min-age: 0\nnum-parts: 1\n")
    refused = CliRunner().invoke(real, ["segment", str(tmp_path), "--config", str(file), "--deadline", "-5"]).exception
    assert isinstance(refused, UsageError)
    assert refused.path != file
    assert "The file says" not in (refused.hint or "")
