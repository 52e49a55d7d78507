import threading

import pytest

from agseg.workflows.ahead import ahead


def test_items_come_in_order_and_few_wait():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(items(), most=2):
        # One in the caller's hands, two that wait, one that is being made, one just begun.
        assert len(made) <= number + 5
    assert made == list(range(20))


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("here")

    found = ahead(items(), most=2)
    assert next(found) == 1
    with pytest.raises(KeyError, match="here"):
        next(found)


def test_closing_early_closes_the_source_and_ends_the_thread():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    found = ahead(items(), most=1)
    next(found)
    found.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
