"""How many processes a run gets, and where."""

from __future__ import annotations

import cv2
import pytest
import torch

from faceqan_toolkit.engines import choice
from faceqan_toolkit.engines.choice import make_engine, worker_devices
from faceqan_toolkit.engines.local import LocalEngine
from faceqan_toolkit.engines.processes import ProcessEngine
from faceqan_toolkit.errors import SettingsError
from faceqan_toolkit.settings import Settings

GB = 1_000_000_000


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> None:
    """Eight cores, 64 GB, no GPU."""
    monkeypatch.setattr(choice, "usable_cores", lambda: 8)
    monkeypatch.setattr(choice, "usable_memory", lambda: 64 * GB)
    gpus(monkeypatch, 0)


def gpus(monkeypatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def devices(photos: int, **options) -> list[str]:
    return worker_devices(Settings(**options), photos)


@pytest.mark.parametrize(
    ("options", "photos", "number"),
    [
        ({}, 1000, 8), ({}, 16, 8), ({}, 7, 3), ({}, 1, 1), ({}, 0, 1),
        ({"preset": "fast"}, 16, 2), ({"preset": "instant"}, 64, 2),
        ({"task": "detect"}, 64, 2), ({"task": "align"}, 31, 1),
        ({"workers": 1}, 1000, 1), ({"workers": 20}, 1000, 20), ({"workers": 3}, 2, 2),
    ],
    ids=str,
)  # fmt: skip
def test_processes_on_a_cpu(options, photos: int, number: int) -> None:
    assert devices(photos, **options) == devices(photos, device="cpu", **options)
    assert devices(photos, **options) == ["cpu"] * number


def test_memory_limits_them(monkeypatch) -> None:
    monkeypatch.setattr(choice, "usable_memory", lambda: 4 * GB)
    assert devices(1000) == ["cpu"] * 2
    assert devices(1000, workers=5) == ["cpu"] * 5
    monkeypatch.setattr(choice, "usable_memory", lambda: GB)
    assert devices(1000) == ["cpu"]
    monkeypatch.setattr(choice, "usable_memory", lambda: None)
    assert devices(1000) == ["cpu"] * 8


def test_one_process_a_gpu(monkeypatch) -> None:
    gpus(monkeypatch, 3)
    every = ["cuda:0", "cuda:1", "cuda:2"]
    assert devices(1000) == devices(1000, device="cuda") == every
    assert devices(2) == every[:2]
    assert devices(1000, device="cuda:1") == ["cuda:1"]
    assert devices(1000, device="cuda:1", workers=2) == ["cuda:1"] * 2
    assert devices(1000, workers=4) == [*every, "cuda:0"]
    assert devices(1000, device="cpu") == ["cpu"] * 8
    with pytest.raises(SettingsError, match="3 CUDA device"):
        devices(1000, device="cuda:3")


def test_devices_that_are_not_there() -> None:
    with pytest.raises(SettingsError, match="0 CUDA device"):
        devices(1000, device="cuda")


def test_engines_and_their_threads(monkeypatch) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        engine = make_engine(Settings(device="cpu"), 1)
        assert isinstance(engine, LocalEngine)
        # so that a single process gives the scores that several give
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
        assert engine.workers == 1
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    engine = make_engine(Settings(device="cpu"), 1000)
    assert isinstance(engine, ProcessEngine)
    assert (engine.workers, engine.threads) == (8, 1)
    gpus(monkeypatch, 3)
    engine = make_engine(Settings(), 1000)
    assert isinstance(engine, ProcessEngine)
    assert (engine.devices, engine.threads) == (("cuda:0", "cuda:1", "cuda:2"), 2)
