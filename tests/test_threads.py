"""Working ahead in threads; what other libraries share among threads is put back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import pytest

from faceqan_toolkit.threads import SILENT, Shared, prefetch, prefetch_map, quiet_opencv
from tests.conftest import HANG, wait_until


def test_threads_that_overlap_leave_opencv_as_it_was() -> None:
    logging = getattr(cv2.utils, "logging", cv2)
    before = logging.getLogLevel()
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with quiet_opencv:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with quiet_opencv:
        leave.set()
        thread.join()
        assert logging.getLogLevel() == SILENT
    assert logging.getLogLevel() == before != SILENT


def test_an_error_inside_is_passed_on_and_the_change_undone() -> None:
    states = []

    @contextmanager
    def change() -> Iterator[None]:
        states.append("changed")
        yield
        states.append("back")

    shared = Shared(change)
    with pytest.raises(KeyError), shared, shared:
        raise KeyError
    assert states == ["changed", "back"]
    with shared:
        assert states == ["changed", "back", "changed"]


def test_order_and_end() -> None:
    assert list(prefetch(range(100), 3)) == list(range(100))
    assert list(prefetch([], 3)) == []


def test_it_works_ahead_but_not_without_bound() -> None:
    produced = []

    def produce() -> Iterator[int]:
        for number in range(20):
            produced.append(number)
            yield number

    items = prefetch(produce(), 4)
    assert next(items) == 0
    wait_until(lambda: len(produced) >= 6)
    time.sleep(0.3)  # for those that must not come
    assert len(produced) == 6  # one taken, four waiting, one in hand
    assert list(items) == list(range(1, 20))


def test_errors_come_after_what_was_done_before() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    items = prefetch(produce(), 4)
    assert next(items) == 1
    with pytest.raises(KeyError, match="lost"):
        next(items)


def test_stopping_early_ends_the_thread() -> None:
    before = threading.active_count()
    items = prefetch(iter(int, 1), 2)
    next(items)
    items.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 4])
def test_mapping_keeps_the_order(threads: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 5))
        return number * number

    assert list(prefetch_map(slow, range(50), 6, threads)) == [n * n for n in range(50)]
    assert list(prefetch_map(slow, [], 6, threads)) == []


def test_mapping_is_shared_out_and_bounded() -> None:
    begun, at_once, most = [], 0, 0
    lock, together = threading.Lock(), threading.Barrier(3)

    def work(number: int) -> int:
        nonlocal at_once, most
        with lock:
            begun.append(number)
            at_once += 1
            most = max(most, at_once)
        if number < 3:  # the first three only go on together
            together.wait(HANG)
        with lock:
            at_once -= 1
        return number

    results = prefetch_map(work, range(40), 6, 3)
    assert next(results) == 0
    time.sleep(0.3)  # for those that must not come
    assert most == 3
    assert len(begun) <= 1 + 6 + 1  # taken, ahead, in the hand that would put it there
    assert list(results) == list(range(1, 40))


def test_an_error_of_the_mapping_comes_in_its_turn_and_ends_the_threads() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise KeyError("lost")
        return number

    before = threading.active_count()
    results = prefetch_map(work, iter(range(1000)), 4, 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="lost"):
        next(results)
    assert threading.active_count() == before


def test_leaving_a_mapping_early_ends_its_threads() -> None:
    before = threading.active_count()
    results = prefetch_map(str, iter(int, 1), 4, 3)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == before
