"""Errors cross process boundaries whole and say what, which value, and what was expected."""

import pickle

from agseg.errors import Code, ExitCode, InputError, WeightsError


def test_an_error_survives_the_way_to_another_process():
    error = InputError(
        "bad spacing", code=Code.IMPLAUSIBLE_SPACING, path="a/b.nii", value=0.001, expected="0.05 to 20 mm", hint="x"
    )
    back = pickle.loads(pickle.dumps(error))
    assert (back.code, back.path, back.value, back.expected, back.hint) == (
        error.code,
        error.path,
        error.value,
        error.expected,
        error.hint,
    )
    assert str(back) == str(error) == "bad spacing: found 0.001, expected 0.05 to 20 mm"


def test_every_kind_of_error_has_its_exit_code():
    assert WeightsError("x").exit_code == ExitCode.WEIGHTS == 7
    assert InputError("x").exit_code == ExitCode.SOME_NOT_DONE == 3
