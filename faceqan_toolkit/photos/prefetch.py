"""Iterators that work ahead in threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T]:
    """Yield the items in order while a thread computes up to `depth` of them ahead.

    An error the thread meets is raised here, after the items before it. When the consumer stops
    early, the thread ends with the item it is at.
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
    """Yield what a function makes of the items, in their order, computed ahead by threads.

    Args:
        function: called by several threads at once.
        items: taken one by one, by a thread of their own.
        depth: results that may be ahead of the consumer, those being computed included.
        threads: that compute.

    An error is raised here, after the results before it. When the consumer stops early, threads
    end with the items they are at.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        with closing(prefetch((pool.submit(function, item) for item in items), depth)) as futures:
            for future in futures:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
