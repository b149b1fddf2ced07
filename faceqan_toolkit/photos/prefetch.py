"""Iterators whose items are computed ahead in threads."""

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
