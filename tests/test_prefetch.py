"""Working ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from faceqan_toolkit.prefetch import prefetch


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
    deadline = time.monotonic() + 5
    while len(produced) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
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
