import threading

import pytest

from agseg.workflows.prefetch import ahead, side_by_side


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


def test_work_is_done_side_by_side_and_comes_back_in_order():
    together = threading.Barrier(2, timeout=20)  # breaks unless two are at work at the same time
    names = set()

    def work(number):
        together.wait()
        return number * number

    found = side_by_side(work, range(10), workers=2, begin=lambda: names.add(threading.current_thread().name))
    assert list(found) == [number * number for number in range(10)]
    assert len(names) == 2


def test_few_items_are_out_at_a_time():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    for number in side_by_side(lambda number: number, items(), workers=2):
        assert len(taken) <= number + 3


def test_an_error_in_a_thread_comes_where_its_result_would():
    def work(number):
        if number == 2:
            raise KeyError(number)
        return number

    found = side_by_side(work, range(5), workers=2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(KeyError):
        next(found)
