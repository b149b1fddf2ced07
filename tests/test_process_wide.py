"""What belongs to the whole process is put back by the last thread that changed it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import pytest

from faceqan_toolkit.process_wide import SILENT, Shared, quiet_opencv


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
