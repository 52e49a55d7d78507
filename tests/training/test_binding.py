from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from agseg.errors import RecipeError
from agseg.training.binding import bind, load


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
        (("  rate: 1e-4\n", ""), 3, "missing key 'rate'"),
        (("rate: 1e-4", "rate: -2"), 3, "the rate is negative"),
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
