from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from agseg.binding import Form, bind, bind_node, load
from agseg.errors import FieldError, RecipeError, UsageError
from agseg.yaml_nodes import read


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    rate: float
    tile: tuple[int, int, int]
    names: tuple[str, ...] = ()

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("the rate is negative")
        if self.tile[0] < 1:
            raise FieldError("tile", "too small", value=self.tile[0], expected="at least 1")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    colour: Colour = Colour.RED
    window: tuple[float, float] | None = None
    table: dict[int, str] = field(default_factory=dict)
    flag: bool = False


GOOD = """\
name: a
inner:
  rate: 1e-4
  tile: [1, 2, 3]
  names: [x, y]
colour: blue
window: [-1, 2.5]
table: {1: one, 2: two}
"""


def test_everything_arrives_with_its_type():
    found = bind(GOOD, Outer)
    assert found == Outer("a", Inner(1e-4, (1, 2, 3), ("x", "y")), Colour.BLUE, (-1.0, 2.5), {1: "one", 2: "two"})
    assert isinstance(found.window[0], float)
    assert bind("name: a\ninner: {rate: 1, tile: [1, 1, 1]}\nwindow: null", Outer).window is None


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("  rate: 1e-4", "  rate: 1e-4\n  speed: 3"), 4, "unknown key 'speed'"),
        (("colour: blue", "colour: green"), 6, "'green' is not known"),
        (("  tile: [1, 2, 3]", "  tile: [1, 2]"), 4, "wrong length"),
        (("name: a", "name: 7"), 1, "wrong type"),
        (("rate: 1e-4", "rate: true"), 3, "wrong type"),
        (("  rate: 1e-4\n", ""), 2, "missing key 'rate'"),
        (("rate: 1e-4", "rate: -2"), 2, "the rate is negative"),
        (("tile: [1, 2, 3]", "tile: [0, 2, 3]"), 4, "tile: too small: found 0, expected at least 1"),
        (("rate: 1e-4", "rate: .nan"), 3, "finite"),
        (("rate: 1e-4", "rate: inf"), 3, "finite"),
        (("  names: [x, y]", "  names: [x, 1]"), 5, "wrong type"),
        (("name: a", "name: a\n? [1]\n: 2"), 2, "a word or a number"),
        (("{1: one, 2: two}", "&a {1: *a}"), 8, "wrong type|holds itself"),
        (("colour: blue", "name: b"), 6, "twice"),
        (("  names: [x, y]", "  names: x"), 5, "a list is expected"),
        (("window: [-1, 2.5]", "window: [-1, a]"), 7, "wrong type"),
    ],
)
def test_every_refusal_names_its_line(change, line, said):
    before, after = change
    assert before in GOOD
    with pytest.raises(RecipeError, match=said) as caught:
        bind(GOOD.replace(before, after), Outer)
    assert caught.value.message.startswith(f"line {line}: ")


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(RecipeError):
        bind(text, Outer)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "none.yaml", Outer)
    assert caught.value.path == tmp_path / "none.yaml"


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("agseg.yaml_nodes.MAX_DOCUMENT_BYTES", 10)
    (tmp_path / "long.yaml").write_text("name: abcdefgh")
    with pytest.raises(RecipeError, match="too large"):
        load(tmp_path / "long.yaml", Outer)


def test_the_error_is_of_the_class_that_was_asked_for(tmp_path):
    (tmp_path / "a.yaml").write_text("nme: a")
    with pytest.raises(UsageError, match="line 1: unknown key 'nme'") as caught:
        load(tmp_path / "a.yaml", Outer, error=UsageError)
    assert caught.value.path == tmp_path / "a.yaml"


def test_merged_keys_keep_the_line_and_the_file_that_they_came_from(tmp_path):
    base, site = tmp_path / "base.yaml", tmp_path / "site.yaml"
    base.write_text(GOOD)
    site.write_text("# ours\nname: b\n")
    merged = read(site).merged_over(read(base))
    assert bind_node(merged, Outer) == Outer(
        "b", Inner(1e-4, (1, 2, 3), ("x", "y")), Colour.BLUE, (-1.0, 2.5), {1: "one", 2: "two"}
    )
    for text, wrong, line in (("name: 7", site, 1), ("colour: green", base, 1)):
        site.write_text("name: b\n")
        base.write_text("inner: {rate: 1, tile: [1, 1, 1]}\n")
        wrong.write_text(f"{text}\n" + ("inner: {rate: 1, tile: [1, 1, 1]}\n" if wrong is base else ""))
        with pytest.raises(RecipeError) as caught:
            bind_node(read(site).merged_over(read(base)), Outer)
        assert (caught.value.path, caught.value.message.split(":")[0]) == (wrong, f"line {line}")


def test_a_type_may_be_written_differently_and_refusals_have_its_line(tmp_path):
    forms = {Inner: Form(float, lambda rate, _path: Inner(rate, (1, 1, 1)))}
    file = tmp_path / "a.yaml"
    file.write_text("name: a\ninner: 2")
    assert load(file, Outer, forms=forms).inner == Inner(2.0, (1, 1, 1))
    file.write_text("name: a\ninner: -2")
    with pytest.raises(RecipeError, match="line 2: the rate is negative"):
        load(file, Outer, forms=forms)


def test_what_an_alias_repeats_is_built_once():
    deep = "a: &a [1]\n" + "".join(f"k{n}: &k{n} [{', '.join([f'*{last}'] * 9)}]\n" for n, last in enumerate(
        ["a", *(f"k{n}" for n in range(30))]
    ))  # fmt: skip
    found = bind(deep, dict[str, Any])
    assert found["k0"] == [[1]] * 9
    assert found["k30"][0] is found["k30"][8]


def test_a_mark_of_byte_order_is_no_part_of_the_text(tmp_path):
    (tmp_path / "windows.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    assert load(tmp_path / "windows.yaml", Outer).name == "a"
