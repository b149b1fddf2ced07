"""Cores, memory, threads, devices and Ctrl-C of this process."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.threads import Shared

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
DEVICES = Path("/dev")
GPU_DEVICES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""Device files of GPUs that torch may know: NVIDIA's, Tegra's, WSL's, AMD's."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_BUFFER = 1 << 30


def usable_cores() -> int:
    """Return how many cores this process may use.

    That is the system's number, limited by a container's quota and by `OMP_NUM_THREADS`.
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
    """Return how many bytes of memory are free for this process; None if that is not known."""
    free = [
        int(line.split()[1]) * 1024
        for line in _read(MEMINFO).splitlines()
        if line.startswith("MemAvailable:")
    ]
    for group in _groups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        used = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes") or "0"
        if limit.isdecimal() and used.isdecimal():
            free.append(max(0, int(limit) - int(used) + _reclaimable(group)))
    return min(free, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the control groups that limit this process: its own and those around it.

    Version 1 of control groups has a tree for every controller, version 2 one for all.
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
    """Return how much of a control group's memory is file cache that the system would drop."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(group / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def may_have_gpu() -> bool:
    """Return whether torch could find a GPU, without importing torch."""
    if not sys.platform.startswith("linux"):
        return True
    return any(any(DEVICES.glob(pattern)) for pattern in GPU_DEVICES)


def resolve_device(name: str) -> torch.device:
    """Return the device of a `--device` value; "auto" takes the fastest.

    Raise SettingsError if it is no device's name, or is not on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(
            f"`device` {name}: not a device; use auto, cpu, cuda, cuda:N or mps"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise SettingsError(
            f"`device` {name}: this machine shows torch {count} CUDA device(s); take `device` "
            "auto, or ask `faceqan-toolkit doctor` why"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(f"`device` {name}: torch sees no Apple GPU here; take `device` auto")
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"`device` {name}: use auto, cpu, cuda, cuda:N or mps")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raise SettingsError for a precision other than "float32" without an NVIDIA GPU."""
    if precision != "float32" and device.type != "cuda":
        raise SettingsError(f"`precision` {precision} is for `device` cuda, not {device}")


@contextmanager
def interrupt_handler(handler: Any) -> Iterator[None]:
    """Have a handler take Ctrl-C meanwhile; it stays if it has set another one.

    Without effect outside the main thread, which alone is interrupted and may set a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, before)


def set_threads(number: int) -> None:
    """Set the number of threads that torch, OpenVINO and OpenCV compute with in this process."""
    import cv2
    import torch

    torch.set_num_threads(number)  # also OpenMP's number, and the one OpenVINO is given
    cv2.setNumThreads(number)


class _OneThread(Shared):
    """Has torch and OpenCV compute with one thread while any thread is inside."""

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


one_thread = _OneThread(_threads_restored)
"""Makes scores equal to the last bit on any machine: the number of threads moves float32 sums."""


@cache
def serial_workers() -> ThreadPoolExecutor:
    """Return the process's pool of as many threads as torch uses, each computing alone.

    torch splits every operation over its threads and waits for the slowest: that costs more than
    it gains where operations take a fraction of a millisecond, and ten times the time where
    others need the processor too. Here a thread computes a piece of work from start to end. Other
    work of torch is split as before.
    """
    import torch

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


def keep_freed_buffers() -> bool:
    """Let the process keep freed memory for its next buffers; return whether that was possible.

    Networks make and drop the same large buffers hundreds of times; glibc gives each back to the
    system and every new one costs page faults, about a tenth of the time. The process keeps its
    peak until it ends. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_BUFFER)
        and mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_BUFFER - 1)
    )
