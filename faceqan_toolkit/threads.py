"""Work ahead in threads, and settings of other libraries that threads share."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")

SILENT = 0
"""OpenCV's LOG_LEVEL_SILENT."""


class Shared:
    """A process-wide change that any number of threads may be inside at once.

    The first thread to enter makes the change, the last to leave undoes it. If each restored what
    it found, one would restore what another had changed.

    Args:
        change: makes the context that makes and undoes the change.
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
    """Disable ONNX Runtime's telemetry, which importing 1.32 starts; call it before the import."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


quiet_opencv = Shared(_silent_opencv)
"""Silences OpenCV's messages; records have the errors."""


class _Failure(NamedTuple):
    error: BaseException


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

    A thread of its own takes the items one by one. At most `depth` results are ahead of the
    consumer, including those in computation. Errors and an early stop are as in `prefetch`.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        with closing(prefetch((pool.submit(function, item) for item in items), depth)) as futures:
            for future in futures:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
