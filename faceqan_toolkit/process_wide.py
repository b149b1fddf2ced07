"""What other libraries keep for the whole process, changed while threads are at work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

SILENT = 0
"""OpenCV's LOG_LEVEL_SILENT."""


class Shared:
    """A context that any number of threads may be in at once.

    The first to come enters the context behind it, the last to leave leaves it: were each to put
    back what it found, one would find what another had changed.

    Args:
        change: makes the context that changes something and puts it back.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._changed: AbstractContextManager[None]

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._changed = self._change()
                self._changed.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._changed.__exit__(None, None, None)


@contextmanager
def _silent_opencv() -> Iterator[None]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # of its decoder of videos
    import cv2

    logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has the functions in cv2 itself
    level = logging.getLogLevel()
    logging.setLogLevel(SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def keep_onnxruntime_private() -> None:
    """Keep ONNX Runtime from reporting to its makers; to be called before it is imported.

    Importing 1.32, for one, writes an identifier of the machine below the user's home.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


quiet_opencv = Shared(_silent_opencv)
"""Keeps OpenCV from telling people's terminals what a record tells."""
