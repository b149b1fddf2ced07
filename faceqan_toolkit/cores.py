"""How much of the machine there is to use, and how many threads a process takes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from faceqan_toolkit.process_wide import Shared

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
DEVICES = Path("/dev")
GPU_DEVICES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""Device files of GPUs that torch may know: NVIDIA's, Tegra's, WSL's, AMD's."""


def usable_cores() -> int:
    """Return how many cores this process may use.

    That is what the system gives it, a container's quota included; `OMP_NUM_THREADS`, where it
    is set, is a smaller number somebody wants.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        period = period or _read(group / "cpu.cfs_period_us")
        quota = quota or _read(group / "cpu.cfs_quota_us")
        if quota.isdecimal() and period.isdecimal():
            cores = min(cores, -(-int(quota) // int(period)))
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal():
        cores = min(cores, int(wanted))
    return max(1, cores)


def usable_memory() -> int | None:
    """Return how many bytes of memory are free for this process, or None if nobody says so."""
    free = []
    for line in _read(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes") or "0"
        if limit.isdecimal() and used.isdecimal():
            free.append(max(0, int(limit) - int(used) + _reclaimable(group)))
    return min(free, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the control groups that limit this process, its own and those around that.

    The first version of control groups has a tree for every controller, the second one for all.
    """
    yield CGROUP
    for line in _read(OWN_CGROUPS).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        tree = CGROUP / controller if controllers else CGROUP
        if controllers and controller not in controllers.split(","):
            continue
        inner = PurePosixPath(path.lstrip("/"))
        yield from (tree / group for group in (inner, *inner.parents))


def _reclaimable(group: Path) -> int:
    """Return how much of a control group's memory is files that the system would drop."""
    for line in _read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def may_have_gpu() -> bool:
    """Tell whether asking torch for GPUs, for which it must be imported, can find one."""
    if not sys.platform.startswith("linux"):
        return True
    return any(any(DEVICES.glob(pattern)) for pattern in GPU_DEVICES)


def set_threads(number: int) -> None:
    """Have this process compute with so many threads, in whichever library."""
    import cv2
    import torch

    torch.set_num_threads(number)  # OpenMP's, and what OpenVINO is told, too
    cv2.setNumThreads(number)


class _OneThread(Shared):
    """Has torch and OpenCV compute with one thread while any thread is inside."""

    def __init__(self) -> None:
        super().__init__(_threads_restored)

    def __enter__(self) -> None:
        super().__enter__()
        set_threads(1)  # OpenMP keeps the number for each thread


@contextmanager
def _threads_restored() -> Iterator[None]:
    import cv2
    import torch

    of_torch, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_opencv)


one_thread = _OneThread()
"""Makes scores equal to the last bit on any machine: the number of threads moves float32 sums."""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
