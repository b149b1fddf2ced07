"""How much of the machine there is to use, and how many threads a process takes of it."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cores() -> int:
    """Return how many cores this process may use.

    That is what the system gives it, a container's quota included; `OMP_NUM_THREADS`, where it
    is set, is a smaller number somebody wants.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = min(cores, -(-int(quota) // int(period)))
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal():
        cores = min(cores, int(wanted))
    return max(1, cores)


def usable_memory() -> int | None:
    """Return how many bytes of memory are free for this process, or None if nobody says so."""
    limits = []
    for line in _read(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    limit = _read(CGROUP / "memory.max")
    if limit.isdecimal():
        limits.append(int(limit))
    return min(limits, default=None)


def set_threads(number: int) -> None:
    """Have this process compute with so many threads, in whichever library."""
    import cv2
    import torch

    torch.set_num_threads(number)  # OpenMP's, and what OpenVINO is told, too
    cv2.setNumThreads(number)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
