"""Cores, memory, threads and the allocator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faceqan_toolkit import hardware
from faceqan_toolkit.hardware import (
    may_have_gpu,
    usable_cores,
    usable_memory,
)
from tests.conftest import HANG


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path: Path) -> Path:
    """Sixteen cores, 8 GB free, no limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "cgroups")
    monkeypatch.setattr(hardware, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:  8000000 kB\n")
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 16), ("250000 100000", 3), ("50000 100000", 1), ("9900000 100000", 16),
     ("nonsense", 16), ("", 16)],
)  # fmt: skip
def test_a_container_has_a_quota(machine: Path, quota: str, expected: int) -> None:
    (machine / "cpu.max").write_text(quota + "\n")
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [("4", 4), ("4,2", 4), ("64", 16), ("", 16), ("0", 1), ("many", 16)]
)
def test_people_may_want_less(monkeypatch, wanted: str, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert usable_cores() == expected


def test_without_affinity(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


def test_memory(machine: Path) -> None:
    assert usable_memory() == 8_000_000 * 1024
    (machine / "memory.max").write_text("max\n")
    assert usable_memory() == 8_000_000 * 1024
    (machine / "memory.max").write_text("1000000000\n")
    assert usable_memory() == 1_000_000_000
    (machine / "memory.max").unlink()
    (machine / "meminfo").unlink()
    assert usable_memory() is None


@pytest.mark.parametrize(
    ("own", "group", "names"),
    [
        ("0::/job/step\n", "job", ("cpu.max", "memory.max", "memory.current")),
        ("0::/../../job\n", "", ("cpu.max", "memory.max", "memory.current")),
        (
            "4:cpu,memory:/job/step\n0::/\n",
            "{}/job/step",
            (None, "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ),
    ],
    ids=["around", "hidden", "version 1"],
)
def test_limits_of_any_group_around_it_count(machine: Path, own: str, group: str, names) -> None:
    (machine / "cgroups").write_text(own)
    for controller in ("cpu", "memory"):
        (machine / group.format(controller)).mkdir(parents=True, exist_ok=True)
    cpu, memory = (machine / group.format(controller) for controller in ("cpu", "memory"))
    if names[0]:
        (cpu / names[0]).write_text("200000 100000\n")
    else:
        (cpu / "cpu.cfs_quota_us").write_text("200000\n")
        (cpu / "cpu.cfs_period_us").write_text("100000\n")
    (memory / names[1]).write_text("3000000000\n")
    (memory / names[2]).write_text("1000000000\n")
    assert usable_cores() == 2
    assert usable_memory() == 2_000_000_000
    # files it has read would make room
    (memory / "memory.stat").write_text("anon 1\ninactive_file 400000000\n")
    assert usable_memory() == 2_400_000_000
    (memory / names[2]).write_text("9000000000\n")
    assert usable_memory() == 0


def test_groups_without_a_limit(machine: Path) -> None:
    (machine / "cgroups").write_text("4:memory:/\n")
    (machine / "memory").mkdir()
    (machine / "memory/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    (machine / "memory/memory.usage_in_bytes").write_text("5\n")
    assert usable_memory() == 8_000_000 * 1024


@pytest.mark.parametrize(
    ("platform", "name", "expected"),
    [("linux", "nvidia0", True), ("linux", "nvme0", False), ("linux", "kfd", True),
     ("linux", "dxg", True), ("darwin", "null", True), ("win32", "null", True)],
)  # fmt: skip
def test_device_files_tell_of_gpus(
    monkeypatch, machine: Path, platform: str, name: str, expected: bool
) -> None:
    monkeypatch.setattr(hardware, "DEVICES", machine)
    monkeypatch.setattr(sys, "platform", platform)
    (machine / name).touch()
    assert may_have_gpu() is expected


PROBE = """
import resource, sys
from faceqan_toolkit.hardware import keep_freed_buffers
if sys.argv[1] == "kept":
    assert keep_freed_buffers()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytearray(b"x") * 20_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
print(faults(20))
"""


def faults(way: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, way], capture_output=True, text=True, check=True, timeout=HANG
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator only")
def test_buffers_are_kept() -> None:
    assert faults("kept") * 10 < faults("given back")


CODE = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from faceqan_toolkit.hardware import serial_workers

torch.set_num_threads({threads})
pool = serial_workers()
counts = set(pool.map(lambda _: torch.get_num_threads(), range(20)))
later = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
print(pool._max_workers, counts, torch.get_num_threads(), later)

from skimage.data import astronaut
from faceqan_toolkit.detection.mtcnn import MTCNN
found = MTCNN().detect(astronaut(), 20)
print(found.confidences.tolist(), found.landmarks.tolist())
"""


def run(threads: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(threads=threads)],
        capture_output=True, text=True, check=True, timeout=HANG,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_threads_and_their_results() -> None:
    alone, three = run(1), run(3)
    assert alone[0] == "1 {1} 1 1"
    assert three[0] == "3 {1} 3 3"
    # a face is the same to the last bit however many threads share the work
    assert alone[1] == three[1] != "[] []"
