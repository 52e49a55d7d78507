"""A message says in words why a file cannot be used."""

from __future__ import annotations

from pathlib import Path

from agseg.io.atomic import output_error
from agseg.io.os_errors import in_words, no_folder


def why(path: Path) -> str:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        return in_words(error)
    return ""


def test_every_usual_reason_has_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xff\xfe\x00")
    assert why(tmp_path / "none") == "it does not exist"
    assert why(file / "below") == "a part of its path is a file"
    assert why(tmp_path) == "it is a folder"
    assert why(file) == "it is not UTF-8 text"
    assert "ENOTTY" in in_words(OSError(25, ""))


def test_what_is_no_folder_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert no_folder(tmp_path) is None
    assert no_folder(tmp_path / "none") == "this folder does not exist"
    assert no_folder(tmp_path / "file") == "this is a file, a folder was expected"


def test_what_cannot_be_written_says_why_in_words() -> None:
    for error, words in (
        (NotADirectoryError(20, ""), "a part of its path is a file"),
        (FileExistsError(17, ""), "in its place"),
    ):
        text = output_error(error, "the folder cannot be made").sentence()
        assert text.startswith("the folder cannot be made: ")
        assert words in text
