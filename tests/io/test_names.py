"""What somebody called a file reaches no terminal, log or table as anything but visible characters."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from agseg.io.names import spelled_out, without_controls

HARMFUL = [chr(n) for n in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066, 0xFEFF)]


def test_every_control_character_is_written_out():
    for character in HARMFUL:
        assert spelled_out(f"a{character}b") not in (f"a{character}b", "ab")
        assert character not in spelled_out(f"a{character}b")
        assert character in "\n\t" or character not in without_controls(f"a{character}b")
    assert spelled_out("a\x1b[2J\r") == r"a\x1b[2J\x0d"
    assert without_controls("two\nlines\tand\x07") == "two\nlines\tand\\x07"


@given(st.binary(min_size=1).map(os.fsdecode))
def test_any_name_is_text_that_can_be_written(name):
    assert spelled_out(name).encode("utf-8").decode("utf-8").isprintable() or " " in name or not name.isprintable()


def test_names_of_all_writings_stay():
    for name in ("Größe 7", "测试", "Ελλάδα", "naïve (2).nii.gz", "नमस्ते"):
        assert spelled_out(name) == without_controls(name) == name
