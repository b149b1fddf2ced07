"""Threads that share the processor without torch's own threads getting in each other's way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


@cache
def serial_workers() -> ThreadPoolExecutor:
    """Return the process's pool of as many threads as torch uses, each computing alone.

    torch splits every operation over its threads and waits for the slowest: that costs more than
    it gains where operations take a fraction of a millisecond, and ten times the time where
    others need the processor too. Here a thread computes a piece of work from start to end. What
    torch does elsewhere is split as before.
    """
    count = torch.get_num_threads()
    if count == 1:
        return ThreadPoolExecutor(1, thread_name_prefix="serial")
    started = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first call of a thread takes over the process's number
        torch.set_num_threads(1)  # for this thread, and for threads that are still to come
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="serial", initializer=begin)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(count)  # for threads to come
    return pool
