"""What a process may use, as the system tells it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faceqan_toolkit import cores
from faceqan_toolkit.cores import usable_cores, usable_memory


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path: Path) -> Path:
    """Sixteen cores, 8 GB free, no limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "MEMINFO", tmp_path / "meminfo")
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
