"""Work ahead in threads, and settings of other libraries that threads share."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TypeVar

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


T = TypeVar("T")
Result = TypeVar("Result")


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T]:
    """Yield the items in order while a thread computes up to `depth` of them ahead.

    An error in the thread is raised here after the items before it. If the consumer stops early,
    the thread ends after its current item.
    """
    ready: queue.Queue[T | _Failure | object] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | _Failure | object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            put(_Failure(error))
        put(_END)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def prefetch_map(
    function: Callable[[T], Result], items: Iterable[T], depth: int, threads: int
) -> Generator[Result]:
    """Yield a function's results in the order of the items, computed ahead by threads.

    An error is raised here after the results before it. If the consumer stops early, the threads
    end after their current items.

    Args:
        function: the function; several threads call it at once.
        items: its arguments; a thread of its own takes them one by one.
        depth: most results ahead of the consumer, including those in computation.
        threads: number of computing threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        with closing(prefetch((pool.submit(function, item) for item in items), depth)) as futures:
            for future in futures:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
